"""Workspaces: made cold, and what a person's build sets of them. Prebuilds are made and changed by `pool`."""
