"""Values <-> protobuf."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from prebuilds.chassis.messages import duration, timestamp
from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.parameters import ParameterType
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.queries.views import PresetView, TemplateRow, VersionRow
from prebuilds.reconciler.rules.durations import parse_duration
from prebuilds.reconciler.rules.manifest import Lifecycle, Manifest, ParameterSpec
from prebuilds.v1 import parameter_pb2, template_pb2

BACKENDS: Final = {
    BackendKind.PROCESS: template_pb2.BACKEND_KIND_PROCESS,
    BackendKind.TERRAFORM: template_pb2.BACKEND_KIND_TERRAFORM,
}
STRATEGIES: Final = {
    ClaimStrategy.PROVISION: template_pb2.CLAIM_STRATEGY_PROVISION,
    ClaimStrategy.INSTANT: template_pb2.CLAIM_STRATEGY_INSTANT,
}
STATUSES: Final = {
    PresetStatus.HEALTHY: template_pb2.PRESET_STATUS_HEALTHY,
    PresetStatus.HARD_LIMITED: template_pb2.PRESET_STATUS_HARD_LIMITED,
    PresetStatus.VALIDATION_FAILED: template_pb2.PRESET_STATUS_VALIDATION_FAILED,
}
TYPES: Final = {
    ParameterType.STRING: parameter_pb2.PARAMETER_TYPE_STRING,
    ParameterType.NUMBER: parameter_pb2.PARAMETER_TYPE_NUMBER,
    ParameterType.BOOL: parameter_pb2.PARAMETER_TYPE_BOOL,
}


def text_of(id_: UUID | None) -> str:
    """An id as text; empty where there is none."""
    return "" if id_ is None else str(id_)


def template_message(row: TemplateRow) -> template_pb2.Template:
    """A template."""
    return template_pb2.Template(
        id=str(row.id),
        organization_id=str(row.organization_id),
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        lifecycle=template_pb2.Lifecycle(
            ttl=duration(row.default_ttl),
            autostart_schedule=row.autostart,
            time_til_dormant=duration(row.time_til_dormant),
            time_til_dormant_autodelete=duration(row.time_til_dormant_autodelete),
        ),
        max_starting=row.max_starting,
        claim_strategy=STRATEGIES[row.claim_strategy],
        active_version_id=text_of(row.active_version_id),
        active_version_name=row.active_version_name,
        deprecation_message=row.deprecated,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        deleted=row.deleted,
    )


def version_message(row: VersionRow) -> template_pb2.TemplateVersion:
    """A version, with what its manifest says."""
    manifest = Manifest.model_validate(row.manifest)
    return template_pb2.TemplateVersion(
        id=str(row.id),
        organization_id=str(row.organization_id),
        template_id=str(row.template_id),
        template_name=row.template_name,
        name=row.name,
        number=row.number,
        active=row.is_active,
        backend=BACKENDS[row.backend],
        claim_strategy=STRATEGIES[manifest.claim_strategy],
        agent_names=row.agents,
        parameters=map(_parameter_message, manifest.parameters),
        lifecycle=None if manifest.lifecycle is None else _lifecycle_message(manifest.lifecycle),
        archive_size_bytes=row.archive_size,
        archive_sha256=row.archive_sha256,
        creator_id=str(row.created_by),
        creator_name=row.creator_name,
        create_time=timestamp(row.created_at),
    )


def preset_message(row: PresetView) -> template_pb2.Preset:
    """A preset."""
    prebuilds = None
    if row.desired_instances is not None:
        prebuilds = template_pb2.PrebuildsPolicy(
            instances=row.desired_instances,
            ttl=duration(row.ttl),
            timezone=row.timezone,
            schedules=[
                template_pb2.Schedule(cron=cron, instances=instances)
                for cron, instances in zip(row.crons, row.schedule_instances, strict=True)
            ],
        )
    return template_pb2.Preset(
        id=str(row.id),
        organization_id=str(row.organization_id),
        template_id=str(row.template_id),
        template_name=row.template_name,
        version_id=str(row.version_id),
        version_name=row.version_name,
        name=row.name,
        description=row.description,
        is_default=row.is_default,
        parameters=row.parameters,
        prebuilds=prebuilds,
        active=row.is_active,
        status=STATUSES[row.status],
        status_detail=row.status_message,
        last_invalidated_time=timestamp(row.last_invalidated_at),
        retry_requested_time=timestamp(row.retry_requested_at),
        create_time=timestamp(row.created_at),
    )


def _parameter_message(spec: ParameterSpec) -> parameter_pb2.Parameter:
    rules = spec.validation
    validation = None
    if rules is not None:
        validation = parameter_pb2.ParameterValidation(
            regex=rules.regex, min=rules.min, max=rules.max, error=rules.error
        )
    return parameter_pb2.Parameter(
        name=spec.name,
        description=spec.description,
        type=TYPES[spec.type],
        default_value=spec.default,
        mutable=spec.mutable,
        options=spec.options,
        validation=validation,
    )


def _lifecycle_message(lifecycle: Lifecycle) -> template_pb2.Lifecycle:
    def length(text: str | None) -> Duration | None:
        return None if text is None else duration(parse_duration(text))

    return template_pb2.Lifecycle(
        ttl=length(lifecycle.ttl),
        autostart_schedule=lifecycle.autostart or "",
        time_til_dormant=length(lifecycle.time_til_dormant),
        time_til_dormant_autodelete=length(lifecycle.time_til_dormant_autodelete),
    )
