"""Pools: the states of their prebuilds and presets, and what is remembered of them."""

from __future__ import annotations

from enum import StrEnum


class PrebuildState(StrEnum):
    """State of an unclaimed prebuild, by its latest build; whether that is still queued, its job tells."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    FAILED = "failed"
    CANCELED = "canceled"


class PresetStatus(StrEnum):
    """Whether a preset's pool may create prebuilds (behaviour section 4)."""

    HEALTHY = "healthy"
    HARD_LIMITED = "hard_limited"
    VALIDATION_FAILED = "validation_failed"


class PoolEventKind(StrEnum):
    """What `pool_events` remembers for metrics and demand history."""

    CREATED = "created"
    FAILED = "failed"
    CLAIMED = "claimed"
    MISSED = "missed"
    EXPIRED = "expired"
    DELETED = "deleted"
    CANCELED = "canceled"
    RESOURCES_REPLACED = "resources_replaced"
