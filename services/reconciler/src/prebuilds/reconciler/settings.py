"""Settings of the reconciler."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from prebuilds.chassis.settings import (
    ByteSize,
    Duration,
    IdentitySettings,
    ServerSettings,
)
from prebuilds.events.backbone import BackboneSettings


class ReconcilerSettings(ServerSettings, BackboneSettings, IdentitySettings):
    """Everything that an operator sets about the reconciler."""

    # Archives of 4 MiB are taken; larger ones up to 16 MiB arrive, to be refused with a reason: gRPC itself gives none.
    max_message_size: ByteSize = Field(
        17 * 1024**2, ge=4 * 1024**2 + 64 * 1024, le=256 * 1024**2, description="Largest request and answer, in bytes."
    )
    reconciliation_interval: Duration = Field(
        timedelta(minutes=1),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How often all pools are looked at, whatever events say.",
    )
    backoff_interval: Duration = Field(
        timedelta(minutes=1),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="How long a pool waits after failed builds, for each of them.",
    )
    backoff_lookback: Duration = Field(
        timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=7),
        description="How far back failed builds count.",
    )
    metrics_interval: Duration = Field(
        timedelta(seconds=15),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How often the metrics of pools are read anew, by each replica.",
    )
    hard_limit: int = Field(
        3, ge=0, le=100, description="Faults of the template in a row that stop its pool; 0 = never."
    )
    failed_retention: Duration = Field(
        timedelta(hours=24),
        ge=timedelta(0),
        le=timedelta(days=30),
        description="How long failed prebuilds are kept for inspection, as many as their pool wants; 0 = not at all.",
    )
