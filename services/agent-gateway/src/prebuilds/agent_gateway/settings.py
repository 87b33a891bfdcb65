"""Settings of the agent gateway."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from prebuilds.chassis.settings import AgentTokenSettings, Duration, ServerSettings
from prebuilds.events.backbone import BackboneSettings


class GatewaySettings(ServerSettings, BackboneSettings, AgentTokenSettings):
    """Everything that the gateway can be told."""

    max_streams: int = Field(20_000, ge=1, le=1_000_000, description="Most calls at once on one connection.")
    max_pending_calls: int = Field(
        50_000,
        ge=1_000,
        le=1_000_000,
        description="Calls that may wait to be begun, as when all agents come back at once.",
    )
    check_interval: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=10),
        le=timedelta(seconds=30),
        description="How often every held stream is compared with the database, event or not.",
    )
    detach_after: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(0),
        le=timedelta(seconds=60),
        description="How long an agent whose stream has ended counts as connected.",
    )
