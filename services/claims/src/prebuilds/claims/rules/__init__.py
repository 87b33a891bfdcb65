"""Pure decisions: which preset fits, what is missed and why, what a workspace is doing."""
