"""What the reconciler reads, and writes alone."""
