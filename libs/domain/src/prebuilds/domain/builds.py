"""Builds and the jobs behind them."""

from __future__ import annotations

from enum import StrEnum


class Transition(StrEnum):
    """What a build does to its workspace."""

    START = "start"
    STOP = "stop"
    DELETE = "delete"


class BuildOutcome(StrEnum):
    """How a build ended; a build without one is unfinished, and its job says how far it is."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class JobStatus(StrEnum):
    """Where a job is in the queue; the last three are those of its build's outcome."""

    PENDING = "pending"
    """Queued; no daemon has it."""
    RUNNING = "running"
    CANCELING = "canceling"
    """Running, and its daemon was asked to give up."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_finished(self) -> bool:
        """True once nothing more happens to the job."""
        return self not in {JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CANCELING}


class BuildReason(StrEnum):
    """Why a build was queued."""

    PREBUILD = "prebuild"
    CLAIM = "claim"
    USER = "user"
    AUTOSTART = "autostart"
    AUTOSTOP = "autostop"
    DORMANCY = "dormancy"
    AUTODELETE = "autodelete"
    RETENTION = "retention"


class FailureClass(StrEnum):
    """Whose fault a failed build is (behaviour section 4): only *template* counts for the hard limit."""

    TEMPLATE = "template"
    INFRASTRUCTURE = "infrastructure"


class BackendKind(StrEnum):
    """What builds the workspaces of a template version."""

    PROCESS = "process"
    TERRAFORM = "terraform"


class LogLevel(StrEnum):
    """Severity of one line of a build's log."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


PERSON_PRIORITY = 0
"""Queue priority of a person's job; lower is served first (behaviour section 7, invariant 9)."""

SYSTEM_PRIORITY = 100
"""Queue priority of a job that keeps a pool filled."""
