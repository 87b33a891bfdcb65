"""Keeps every pool of prebuilds at its target; the API of template admins."""
