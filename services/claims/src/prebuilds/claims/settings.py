"""Settings of the claims service."""

from __future__ import annotations

from pydantic import Field

from prebuilds.chassis.settings import DatabaseSettings, EventSettings, IdentitySettings, ServerSettings


class ClaimsSettings(ServerSettings, DatabaseSettings, EventSettings, IdentitySettings):
    """Everything that the claims service can be told."""

    migrate: bool = Field(default=True, description="Whether to bring the database to this release's schema at start.")
