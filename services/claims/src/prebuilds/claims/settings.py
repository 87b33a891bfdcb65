"""Settings of the claims service."""

from __future__ import annotations

from prebuilds.chassis.settings import IdentitySettings, ServerSettings
from prebuilds.events.backbone import BackboneSettings


class ClaimsSettings(ServerSettings, BackboneSettings, IdentitySettings):
    """Everything that the claims service can be told."""
