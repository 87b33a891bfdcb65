"""Requests as values; everything that is wrong with one is refused at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prebuilds.chassis.fields import Fields
from prebuilds.domain.builds import BackendKind, FailureClass, LogLevel
from prebuilds.domain.ids import JobId
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


def read_acquire(request: pb.AcquireJobRequest) -> tuple[DaemonOnCall, timedelta]:
    """Who asks, and how long to wait."""
    fields = Fields()
    daemon = request.daemon
    _name(fields, "daemon.name", daemon.name, 63)
    fields.check(
        "daemon.host_id", "must have 1 to 64 letters, digits and hyphens", is_good=bool(_HOST.fullmatch(daemon.host_id))
    )
    _name(fields, "daemon.version", daemon.version, 64)
    kinds = [_BACKENDS.get(kind) for kind in daemon.backends]
    fields.check("daemon.backends", "must name at least one, and known ones only", is_good=bool(kinds) and all(kinds))
    max_wait = DEFAULT_WAIT
    if request.HasField("max_wait"):
        max_wait = fields.duration("max_wait", request.max_wait, most=LONGEST_WAIT)
    fields.done()
    backends = frozenset(kind for kind in kinds if kind is not None)
    return DaemonOnCall(daemon.name, daemon.host_id, daemon.version, backends), max_wait


def read_update(request: pb.UpdateJobRequest) -> tuple[HeldLease, Sequence[LogLine]]:
    """Whose job lives, and what it said."""
    fields = Fields()
    held, logs = _lease(fields, request.lease), _logs(fields, request.logs)
    fields.done()
    return held, logs


def read_complete(request: pb.CompleteJobRequest) -> tuple[HeldLease, Completion]:
    """How a job ended well."""
    fields = Fields()
    held, logs = _lease(fields, request.lease), _logs(fields, request.logs)
    _check_state(fields, request.provisioner_state)
    _check_host(fields, request.host_id)
    fields.check("daily_cost", f"must be 0 to {MAX_COST}", is_good=0 <= request.daily_cost <= MAX_COST)
    for field, items in (("resources", request.resources), ("replacements", request.replacements)):
        fields.check(field, f"at most {MAX_ITEMS}", is_good=len(items) <= MAX_ITEMS)
    for number, resource in enumerate(request.resources):
        fields.check(f"resources[{number}].daily_cost", "must not be negative", is_good=resource.daily_cost >= 0)
    report: dict[str, object] = {
        "resources": [
            {
                "type": resource.type,
                "name": resource.name,
                "daily_cost": resource.daily_cost,
                "metadata": dict(resource.metadata),
            }
            for resource in request.resources
        ],
        "replacements": [{"resource": each.resource, "paths": list(each.paths)} for each in request.replacements],
        "timings": _timings(fields, request.timings),
    }
    fields.done()
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
    fields = Fields()
    held, logs = _lease(fields, request.lease), _logs(fields, request.logs)
    failure_class = _CLASSES.get(request.failure_class)
    if not request.canceled:
        fields.check("error", "must say what went wrong", is_good=bool(request.error))
        fields.check("failure_class", "must say whose fault it is", is_good=failure_class is not None)
    _check_state(fields, request.provisioner_state)
    _check_host(fields, request.host_id)
    report: dict[str, object] = {"timings": _timings(fields, request.timings)}
    fields.done()
    return held, Failure(
        error=request.error[:MAX_ERROR],
        failure_class=failure_class,
        is_canceled=request.canceled,
        host_id=request.host_id,
        report=report,
        logs=logs,
        provisioner_state=request.provisioner_state if request.HasField("provisioner_state") else None,
    )


def _name(fields: Fields, field: str, text: str, longest: int) -> None:
    fields.check(
        field,
        f"must have 1 to {longest} printable characters",
        is_good=0 < len(text) <= longest and text.isprintable(),
    )


def _lease(fields: Fields, lease: job_pb2.JobLease) -> HeldLease:
    return HeldLease(JobId(fields.id("lease.job_id", lease.job_id)), fields.id("lease.lease_id", lease.lease_id))


def _logs(fields: Fields, logs: Sequence[job_pb2.JobLog]) -> Sequence[LogLine]:
    fields.check("logs", f"at most {MAX_LINES} lines", is_good=len(logs) <= MAX_LINES)
    lines: list[LogLine] = []
    for number, log in enumerate(logs[:MAX_LINES]):
        field = f"logs[{number}]"
        fields.check(f"{field}.sequence", "must be 1 or more", is_good=log.sequence > 0)
        fields.check(f"{field}.log_time", "must be given", is_good=log.HasField("log_time"))
        fields.check(f"{field}.stage", f"at most {MAX_STAGE} characters", is_good=len(log.stage) <= MAX_STAGE)
        logged_at = fields.time(f"{field}.log_time", log.log_time)
        level = _LEVELS.get(log.level, LogLevel.INFO)
        lines.append(LogLine(log.sequence, logged_at, level, log.stage, log.text[:MAX_LINE]))
    return lines


def _timings(fields: Fields, timings: Sequence[job_pb2.JobTiming]) -> list[dict[str, object]]:
    fields.check("timings", f"at most {MAX_TIMINGS}", is_good=len(timings) <= MAX_TIMINGS)
    return [
        {
            "stage": timing.stage,
            "started_at": fields.time(f"timings[{number}].start_time", timing.start_time).isoformat(),
            "seconds": fields.duration(
                f"timings[{number}].duration", timing.duration, most=timedelta(days=365)
            ).total_seconds(),
        }
        for number, timing in enumerate(timings[:MAX_TIMINGS])
    ]


def _check_state(fields: Fields, state: bytes) -> None:
    fields.check("provisioner_state", f"at most {MAX_STATE} bytes", is_good=len(state) <= MAX_STATE)


def _check_host(fields: Fields, host_id: str) -> None:
    fields.check(
        "host_id",
        "must have 1 to 64 letters, digits and hyphens",
        is_good=not host_id or bool(_HOST.fullmatch(host_id)),
    )
