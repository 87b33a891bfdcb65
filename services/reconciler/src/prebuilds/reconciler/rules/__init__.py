"""Pure decisions of the reconciler; the moment is always an argument."""
