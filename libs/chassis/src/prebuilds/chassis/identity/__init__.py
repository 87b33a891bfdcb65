"""Who is calling: tokens, the keys they are checked with, and what a service shows of itself to others."""
