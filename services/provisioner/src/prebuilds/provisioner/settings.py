"""Settings of the provisioner service."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from prebuilds.chassis.settings import (
    AgentTokenSettings,
    ByteSize,
    Duration,
    IdentitySettings,
    ServerSettings,
)
from prebuilds.events.backbone import BackboneSettings


class ProvisionerSettings(ServerSettings, BackboneSettings, IdentitySettings, AgentTokenSettings):
    """Everything that the provisioner service can be told."""

    max_message_size: ByteSize = Field(
        16 * 1024**2,
        ge=16 * 1024**2,
        le=256 * 1024**2,
        description="Largest request and answer, in bytes; a job with archive and state can have 12 MiB.",
    )
    gateway_url: str = Field(
        min_length=1,
        pattern=r"^(https?://\S+|[^/\s]+:\d+)$",
        description="Where agents find the gateway: host:port, or a URL of scheme http or https.",
    )
    lease_duration: Duration = Field(
        timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long a daemon holds a job without renewing its lease.",
    )
    cancel_grace: Duration = Field(
        timedelta(minutes=1),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="How long a daemon may take to give up a cancelled job before it is ended by force.",
    )
    longest_wait: Duration = Field(
        timedelta(minutes=30),
        ge=timedelta(seconds=1),
        le=timedelta(days=7),
        description="How long a job waits for a daemon before it fails.",
    )
    sweep_interval: Duration = Field(
        timedelta(seconds=2),
        ge=timedelta(milliseconds=10),
        le=timedelta(minutes=1),
        description="How often lost leases, overdue cancellations and unclaimed jobs are looked for.",
    )
