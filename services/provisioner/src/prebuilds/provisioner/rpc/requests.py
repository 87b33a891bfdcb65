"""Requests as values; everything that is wrong with one is refused at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from prebuilds.domain.builds import BackendKind, FailureClass, LogLevel
from prebuilds.domain.ids import JobId
from prebuilds.domain.refusals import Refusal, Violation
from prebuilds.provisioner.acquiring import DaemonOnCall
from prebuilds.provisioner.reporting import Completion, Failure, HeldLease
from prebuilds.store.jobs.leasing import LogLine
from prebuilds.v1 import job_pb2, template_pb2, workspace_pb2
from prebuilds.v1 import provisioner_service_pb2 as pb

DEFAULT_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(seconds=60)
MAX_LINES: Final = 1000
MAX_LINE: Final = 8 * 1024  # characters
MAX_STAGE: Final = 64
MAX_ERROR: Final = 4 * 1024  # characters
MAX_STATE: Final = 8 * 1024**2  # bytes
MAX_ITEMS: Final = 1000
MAX_TIMINGS: Final = 100
MAX_COST: Final = 2**31 - 1

_HOST: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_BACKENDS: Final = {template_pb2.BackendKind.Value(f"BACKEND_KIND_{kind.name}"): kind for kind in BackendKind}
_LEVELS: Final = {workspace_pb2.LogLevel.Value(f"LOG_LEVEL_{level.name}"): level for level in LogLevel}
_CLASSES: Final = {workspace_pb2.FailureClass.Value(f"FAILURE_CLASS_{kind.name}"): kind for kind in FailureClass}


class _Reader:
    """Collects what is wrong while a request is read."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def check(self, field: str, description: str, *, is_good: bool) -> None:
        """Note a violation unless all is well."""
        if not is_good:
            self._violations.append(Violation(field, description))

    def refuse(self) -> None:
        """Raise Refusal INVALID_FIELDS if anything was wrong."""
        if self._violations:
            raise Refusal.invalid(*self._violations)

    def uuid(self, field: str, text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            self.check(field, "must be a UUID", is_good=False)
            return UUID(int=0)

    def name(self, field: str, text: str, longest: int) -> str:
        self.check(
            field,
            f"must have 1 to {longest} printable characters",
            is_good=0 < len(text) <= longest and text.isprintable(),
        )
        return text

    def duration(self, field: str, value: Duration, longest: timedelta) -> timedelta:
        try:
            read = value.ToTimedelta()
        except (ValueError, OverflowError):
            read = timedelta(-1)
        self.check(field, f"must be 0 to {longest.total_seconds():g} s", is_good=timedelta(0) <= read <= longest)
        return read

    def time(self, field: str, value: Timestamp) -> datetime:
        try:
            return value.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.check(field, "is no time between the years 1 and 9999", is_good=False)
            return datetime.min.replace(tzinfo=UTC)


def read_acquire(request: pb.AcquireJobRequest) -> tuple[DaemonOnCall, timedelta]:
    """Who asks, and how long to wait."""
    reader = _Reader()
    daemon = request.daemon
    reader.name("daemon.name", daemon.name, 63)
    reader.check(
        "daemon.host_id", "must have 1 to 64 letters, digits and hyphens", is_good=bool(_HOST.fullmatch(daemon.host_id))
    )
    reader.name("daemon.version", daemon.version, 64)
    kinds = [_BACKENDS.get(kind) for kind in daemon.backends]
    reader.check("daemon.backends", "must name at least one, and known ones only", is_good=bool(kinds) and all(kinds))
    max_wait = DEFAULT_WAIT
    if request.HasField("max_wait"):
        max_wait = reader.duration("max_wait", request.max_wait, LONGEST_WAIT)
    reader.refuse()
    backends = frozenset(kind for kind in kinds if kind is not None)
    return DaemonOnCall(daemon.name, daemon.host_id, daemon.version, backends), max_wait


def read_update(request: pb.UpdateJobRequest) -> tuple[HeldLease, Sequence[LogLine]]:
    """Whose job lives, and what it said."""
    reader = _Reader()
    held, logs = _lease(reader, request.lease), _logs(reader, request.logs)
    reader.refuse()
    return held, logs


def read_complete(request: pb.CompleteJobRequest) -> tuple[HeldLease, Completion]:
    """How a job ended well."""
    reader = _Reader()
    held, logs = _lease(reader, request.lease), _logs(reader, request.logs)
    _check_state(reader, request.provisioner_state)
    _check_host(reader, request.host_id)
    reader.check("daily_cost", f"must be 0 to {MAX_COST}", is_good=0 <= request.daily_cost <= MAX_COST)
    for field, items in (("resources", request.resources), ("replacements", request.replacements)):
        reader.check(field, f"at most {MAX_ITEMS}", is_good=len(items) <= MAX_ITEMS)
    for number, resource in enumerate(request.resources):
        reader.check(f"resources[{number}].daily_cost", "must not be negative", is_good=resource.daily_cost >= 0)
    report: dict[str, object] = {
        "resources": [
            {
                "type": _text(resource.type),
                "name": _text(resource.name),
                "daily_cost": resource.daily_cost,
                "metadata": {_text(key): _text(value) for key, value in resource.metadata.items()},
            }
            for resource in request.resources
        ],
        "replacements": [
            {"resource": _text(each.resource), "paths": [_text(path) for path in each.paths]}
            for each in request.replacements
        ],
        "timings": _timings(reader, request.timings),
    }
    reader.refuse()
    return held, Completion(
        agent_names=tuple(request.agent_names),
        daily_cost=request.daily_cost,
        host_id=request.host_id,
        report=report,
        logs=logs,
        provisioner_state=request.provisioner_state,
    )


def read_fail(request: pb.FailJobRequest) -> tuple[HeldLease, Failure]:
    """How a job ended badly."""
    reader = _Reader()
    held, logs = _lease(reader, request.lease), _logs(reader, request.logs)
    failure_class = _CLASSES.get(request.failure_class)
    if not request.canceled:
        reader.check("error", "must say what went wrong", is_good=bool(request.error))
        reader.check("failure_class", "must say whose fault it is", is_good=failure_class is not None)
    _check_state(reader, request.provisioner_state)
    _check_host(reader, request.host_id)
    report: dict[str, object] = {"timings": _timings(reader, request.timings)}
    reader.refuse()
    return held, Failure(
        error=_text(request.error)[:MAX_ERROR],
        failure_class=failure_class,
        is_canceled=request.canceled,
        host_id=request.host_id,
        report=report,
        logs=logs,
        provisioner_state=request.provisioner_state if request.HasField("provisioner_state") else None,
    )


def _lease(reader: _Reader, lease: job_pb2.JobLease) -> HeldLease:
    return HeldLease(JobId(reader.uuid("lease.job_id", lease.job_id)), reader.uuid("lease.lease_id", lease.lease_id))


def _logs(reader: _Reader, logs: Sequence[job_pb2.JobLog]) -> Sequence[LogLine]:
    reader.check("logs", f"at most {MAX_LINES} lines", is_good=len(logs) <= MAX_LINES)
    lines: list[LogLine] = []
    for number, log in enumerate(logs[:MAX_LINES]):
        field = f"logs[{number}]"
        reader.check(f"{field}.sequence", "must be 1 or more", is_good=log.sequence > 0)
        reader.check(f"{field}.log_time", "must be given", is_good=log.HasField("log_time"))
        reader.check(f"{field}.stage", f"at most {MAX_STAGE} characters", is_good=len(log.stage) <= MAX_STAGE)
        logged_at = reader.time(f"{field}.log_time", log.log_time)
        level = _LEVELS.get(log.level, LogLevel.INFO)
        lines.append(LogLine(log.sequence, logged_at, level, _text(log.stage), _text(log.text)[:MAX_LINE]))
    return lines


def _timings(reader: _Reader, timings: Sequence[job_pb2.JobTiming]) -> list[dict[str, object]]:
    reader.check("timings", f"at most {MAX_TIMINGS}", is_good=len(timings) <= MAX_TIMINGS)
    return [
        {
            "stage": _text(timing.stage),
            "started_at": reader.time(f"timings[{number}].start_time", timing.start_time).isoformat(),
            "seconds": reader.duration(
                f"timings[{number}].duration", timing.duration, timedelta(days=365)
            ).total_seconds(),
        }
        for number, timing in enumerate(timings[:MAX_TIMINGS])
    ]


def _check_state(reader: _Reader, state: bytes) -> None:
    reader.check("provisioner_state", f"at most {MAX_STATE} bytes", is_good=len(state) <= MAX_STATE)


def _check_host(reader: _Reader, host_id: str) -> None:
    reader.check(
        "host_id",
        "must have 1 to 64 letters, digits and hyphens",
        is_good=not host_id or bool(_HOST.fullmatch(host_id)),
    )


def _text(text: str) -> str:
    """The text without what Postgres cannot hold."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
