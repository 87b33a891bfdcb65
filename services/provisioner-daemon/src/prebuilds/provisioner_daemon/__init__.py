"""The program that builds workspaces: worker, lease keeping, backends."""
