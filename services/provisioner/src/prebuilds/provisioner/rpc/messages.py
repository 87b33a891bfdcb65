"""Values as the messages of `prebuilds.v1`."""

from __future__ import annotations

from prebuilds.chassis.messages import duration, timestamp
from prebuilds.domain.builds import (
    PERSON_PRIORITY,
    BackendKind,
    BuildReason,
    FailureClass,
    JobStatus,
    Transition,
)
from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.provisioner.acquiring import Acquired
from prebuilds.provisioner.queries.views import JobView
from prebuilds.provisioner.reporting import LeaseState
from prebuilds.v1 import job_pb2, provisioner_service_pb2, template_pb2, workspace_pb2

_BACKENDS = {kind: template_pb2.BackendKind.Value(f"BACKEND_KIND_{kind.name}") for kind in BackendKind}
_TRANSITIONS = {kind: workspace_pb2.Transition.Value(f"TRANSITION_{kind.name}") for kind in Transition}
_REASONS = {reason: workspace_pb2.BuildReason.Value(f"BUILD_REASON_{reason.name}") for reason in BuildReason}
_STATUSES = {status: workspace_pb2.BuildStatus.Value(f"BUILD_STATUS_{status.name}") for status in JobStatus}
_CLASSES = {
    None: workspace_pb2.FAILURE_CLASS_UNSPECIFIED,
    **{kind: workspace_pb2.FailureClass.Value(f"FAILURE_CLASS_{kind.name}") for kind in FailureClass},
}
_HELD = frozenset({JobStatus.RUNNING, JobStatus.CANCELING})


def acquired_job(acquired: Acquired) -> job_pb2.AcquiredJob:
    """A job with everything that is needed to do it, secrets included."""
    lease, facts = acquired.lease, acquired.facts
    return job_pb2.AcquiredJob(
        lease=job_pb2.JobLease(
            job_id=str(lease.job_id),
            lease_id=str(lease.lease_id),
            attempt=lease.attempt,
            expire_time=timestamp(lease.lease_expires_at),
            duration=duration(acquired.lease_for),
        ),
        organization_id=str(lease.organization_id),
        organization_name=facts.organization_name,
        build_id=str(lease.build_id),
        build_number=facts.number,
        transition=_TRANSITIONS[facts.transition],
        reason=_REASONS[facts.reason],
        backend=_BACKENDS[lease.backend],
        workspace_id=str(lease.workspace_id),
        workspace_name=facts.workspace_name,
        owner_id=str(facts.owner_id),
        owner_name=facts.owner_name,
        template_id=str(facts.template_id),
        template_name=facts.template_name,
        version_id=str(facts.version_id),
        version_name=facts.version_name,
        parameters=facts.parameters,
        is_prebuild=facts.owner_id == SYSTEM_USER_ID,
        is_prebuild_claim=facts.reason is BuildReason.CLAIM,
        generation=facts.generation,
        agents=[job_pb2.JobAgent(id=str(agent.id), name=agent.name, token=agent.token) for agent in acquired.agents],
        gateway_address=acquired.gateway_address,
        source_archive=facts.source_archive,
        provisioner_state=facts.provisioner_state or b"",
        host_id=facts.host or "",
        traceparent=lease.traceparent or "",
    )


def lease_state(state: LeaseState) -> provisioner_service_pb2.UpdateJobResponse:
    """How a lease goes on."""
    return provisioner_service_pb2.UpdateJobResponse(
        cancel_requested=state.cancel_deadline is not None,
        lease_expire_time=timestamp(state.expires_at),
        lease_duration=duration(state.lease_for),
        cancel_deadline=timestamp(state.cancel_deadline),
    )


def job(view: JobView) -> job_pb2.Job:
    """A job as people see it."""
    is_person = view.priority == PERSON_PRIORITY
    return job_pb2.Job(
        id=str(view.job_id),
        organization_id=str(view.organization_id),
        build_id=str(view.build_id),
        workspace_id=str(view.workspace_id),
        workspace_name=view.workspace_name,
        template_name=view.template_name,
        transition=_TRANSITIONS[view.transition],
        status=_STATUSES[view.status],
        priority=job_pb2.JOB_PRIORITY_PERSON if is_person else job_pb2.JOB_PRIORITY_SYSTEM,
        backend=_BACKENDS[view.backend],
        tags=view.tags,
        attempt=view.attempt,
        lease_owner=view.lease_owner,
        lease_expire_time=timestamp(view.lease_expires_at) if view.status in _HELD else None,
        cancel_request_time=timestamp(view.cancel_requested_at),
        failure_class=_CLASSES[view.failure_class],
        error=view.error,
        create_time=timestamp(view.created_at),
        start_time=timestamp(view.started_at),
        end_time=timestamp(view.finished_at),
    )
