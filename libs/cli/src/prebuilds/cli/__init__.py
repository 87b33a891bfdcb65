"""The prebuilds command."""
