"""What clients need: channel, retry, a typed client for people and one for agents."""
