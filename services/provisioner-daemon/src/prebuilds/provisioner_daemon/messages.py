"""Values and the messages of `prebuilds.v1`, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, LogLevel, Transition
from prebuilds.provisioner_daemon.jobs import (
    BadEnd,
    BuildJob,
    JobAgent,
    JobLease,
    LeaseAnswer,
    LogLine,
    Result,
)
from prebuilds.v1 import job_pb2, template_pb2, workspace_pb2
from prebuilds.v1 import provisioner_service_pb2 as pb

BACKENDS = {kind: template_pb2.BackendKind.Value(f"BACKEND_KIND_{kind.name}") for kind in BackendKind}
_KINDS = {number: kind for kind, number in BACKENDS.items()}
_TRANSITIONS = {workspace_pb2.Transition.Value(f"TRANSITION_{each.name}"): each for each in Transition}
_REASONS = {workspace_pb2.BuildReason.Value(f"BUILD_REASON_{each.name}"): each for each in BuildReason}
_LEVELS = {level: workspace_pb2.LogLevel.Value(f"LOG_LEVEL_{level.name}") for level in LogLevel}
_CLASSES = {each: workspace_pb2.FailureClass.Value(f"FAILURE_CLASS_{each.name}") for each in FailureClass}


def read_job(job: job_pb2.AcquiredJob) -> BuildJob:
    """The job; raises KeyError or ValueError for what this release does not know."""
    return BuildJob(
        lease=JobLease(
            UUID(job.lease.job_id), UUID(job.lease.lease_id), job.lease.attempt, job.lease.duration.ToTimedelta()
        ),
        organization_name=job.organization_name,
        build_id=UUID(job.build_id),
        build_number=job.build_number,
        transition=_TRANSITIONS[job.transition],
        reason=_REASONS.get(job.reason, BuildReason.USER),
        backend=_KINDS[job.backend],
        workspace_id=UUID(job.workspace_id),
        workspace_name=job.workspace_name,
        owner_id=UUID(job.owner_id),
        owner_name=job.owner_name,
        template_name=job.template_name,
        version_id=UUID(job.version_id),
        version_name=job.version_name,
        parameters=dict(job.parameters),
        is_prebuild=job.is_prebuild,
        is_prebuild_claim=job.is_prebuild_claim,
        generation=job.generation,
        agents=[JobAgent(UUID(agent.id), agent.name, agent.token) for agent in job.agents],
        gateway_address=job.gateway_address,
        traceparent=job.traceparent,
        source_archive=job.source_archive,
        provisioner_state=job.provisioner_state,
    )


def read_answer(answer: pb.UpdateJobResponse) -> LeaseAnswer:
    """What the service says to a sign of life."""
    return LeaseAnswer(answer.lease_duration.ToTimedelta(), answer.cancel_requested)


def acquire_request(daemon: job_pb2.Daemon, max_wait: timedelta) -> pb.AcquireJobRequest:
    """Ask for a job."""
    request = pb.AcquireJobRequest(daemon=daemon)
    request.max_wait.FromTimedelta(max_wait)
    return request


def update_request(lease: JobLease, lines: Sequence[LogLine]) -> pb.UpdateJobRequest:
    """A sign of life."""
    return pb.UpdateJobRequest(lease=_lease(lease), logs=_logs(lines))


def complete_request(lease: JobLease, result: Result, lines: Sequence[LogLine]) -> pb.CompleteJobRequest:
    """A good end."""
    return pb.CompleteJobRequest(
        lease=_lease(lease),
        agent_names=result.agent_names,
        provisioner_state=result.provisioner_state,
        daily_cost=result.daily_cost,
        host_id=result.host_id,
        logs=_logs(lines),
    )


def fail_request(lease: JobLease, end: BadEnd, lines: Sequence[LogLine]) -> pb.FailJobRequest:
    """A bad end."""
    failure_class = end.failure_class
    return pb.FailJobRequest(
        lease=_lease(lease),
        # A tool's words may hold NUL, which the service takes in no text.
        error=end.error.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        failure_class=workspace_pb2.FAILURE_CLASS_UNSPECIFIED if failure_class is None else _CLASSES[failure_class],
        canceled=failure_class is None,
        host_id=end.host_id,
        logs=_logs(lines),
    )


def _lease(lease: JobLease) -> job_pb2.JobLease:
    return job_pb2.JobLease(job_id=str(lease.job_id), lease_id=str(lease.lease_id), attempt=lease.attempt)


def _logs(lines: Sequence[LogLine]) -> list[job_pb2.JobLog]:
    logs: list[job_pb2.JobLog] = []
    for line in lines:
        log = job_pb2.JobLog(sequence=line.sequence, level=_LEVELS[line.level], stage=line.stage, text=line.text)
        log.log_time.FromDatetime(line.logged_at)
        logs.append(log)
    return logs
