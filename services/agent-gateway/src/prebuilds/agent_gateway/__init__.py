"""Manifest, readiness and the reinit stream; the API of agents."""
