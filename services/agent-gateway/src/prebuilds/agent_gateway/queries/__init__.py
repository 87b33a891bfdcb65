"""What the gateway reads, and what it alone writes of agents."""
