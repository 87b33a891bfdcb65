"""What builds workspaces, behind one small port."""
