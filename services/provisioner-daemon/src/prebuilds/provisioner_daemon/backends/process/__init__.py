"""The backend whose workspaces are folders with a supervised agent process on this host."""
