"""The pools: the only writer of `prebuilds` (design section 4)."""
