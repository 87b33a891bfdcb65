"""Answers requests for workspaces: claims a ready one or builds it cold; the API of developers."""
