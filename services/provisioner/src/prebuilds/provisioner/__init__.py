"""Hands out build jobs and takes their results; the API of provisioner daemons."""
