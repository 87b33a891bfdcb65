"""What the claims service reads, and the workspaces that it alone writes."""
