"""The program inside a workspace."""
