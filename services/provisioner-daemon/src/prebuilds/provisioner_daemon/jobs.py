"""What a daemon knows of a job, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, LogLevel, Transition


@dataclass(frozen=True, slots=True)
class JobLease:
    """The right to work on a job."""

    job_id: UUID
    lease_id: UUID
    attempt: int
    lasts_for: timedelta


@dataclass(frozen=True, slots=True)
class JobAgent:
    """An agent to bring to life."""

    id: UUID
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BuildJob:
    """A job with everything that is needed to do it."""

    lease: JobLease
    organization_name: str
    build_id: UUID
    build_number: int
    transition: Transition
    reason: BuildReason
    backend: BackendKind
    workspace_id: UUID
    workspace_name: str
    owner_id: UUID
    owner_name: str
    template_name: str
    version_id: UUID
    version_name: str
    parameters: Mapping[str, str]
    is_prebuild: bool
    is_prebuild_claim: bool
    generation: int
    agents: Sequence[JobAgent]
    gateway_address: str
    traceparent: str
    source_archive: bytes = field(repr=False)
    provisioner_state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a job's log."""

    sequence: int
    logged_at: datetime
    level: LogLevel
    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """A good end."""

    agent_names: Sequence[str] = ()
    daily_cost: int = 0
    host_id: str = ""
    """Host that later jobs must run on; empty for any."""
    provisioner_state: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BadEnd:
    """A bad end, or a cancellation where `failure_class` is None."""

    error: str
    failure_class: FailureClass | None
    host_id: str = ""


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What the service says to a sign of life."""

    lasts_for: timedelta
    cancel_requested: bool


class BuildFailedError(Exception):
    """A build ended badly; the text is for people and holds no secret."""

    def __init__(self, message: str, failure_class: FailureClass) -> None:
        """`failure_class` says whose fault it is."""
        super().__init__(message)
        self.failure_class = failure_class
