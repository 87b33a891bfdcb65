"""The servicers of `WorkspaceService` and `ClaimService`."""
