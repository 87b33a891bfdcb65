"""What tests do to templates over gRPC, and to what there is of them behind its back."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select, update

from prebuilds.domain.builds import JobStatus, Transition
from prebuilds.domain.ids import JobId, OrganizationId, PresetId, TemplateId, VersionId
from prebuilds.domain.pools import PrebuildState
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import template_pb2
from prebuilds.v1 import template_service_pb2 as pb
from tests.support.reconciling import Client, Stage
from tests.support.waiting import eventually


def hours(number: int) -> Duration:
    return Duration(seconds=number * 3600)


def pool_key(preset: template_pb2.Preset) -> PoolKey:
    return PoolKey(
        OrganizationId(UUID(preset.organization_id)),
        TemplateId(UUID(preset.template_id)),
        VersionId(UUID(preset.version_id)),
        PresetId(UUID(preset.id)),
        preset.name,
    )


async def make_template(client: Client, name: str = "python-dev", request_id: str = "") -> template_pb2.Template:
    """A template without a version, with something in every field that can be changed."""
    template = template_pb2.Template(
        name=name,
        display_name="Python",
        description="for Python",
        lifecycle=template_pb2.Lifecycle(ttl=hours(8), autostart_schedule="0 8 * * 1-5", time_til_dormant=hours(720)),
        max_starting=5,
    )
    request = pb.CreateTemplateRequest(organization="acme", template=template, request_id=request_id)
    return (await client.templates.CreateTemplate(request, metadata=client.metadata)).template


async def update_template(client: Client, wanted: template_pb2.Template, *paths: str) -> template_pb2.Template:
    request = pb.UpdateTemplateRequest(template=wanted, update_mask=FieldMask(paths=paths))
    return (await client.templates.UpdateTemplate(request, metadata=client.metadata)).template


async def deprecate(client: Client, template_id: str, message: str) -> template_pb2.Template:
    request = pb.DeprecateTemplateRequest(id=template_id, message=message)
    return (await client.templates.DeprecateTemplate(request, metadata=client.metadata)).template


async def delete_template(
    client: Client, template_id: str, *, validate_only: bool = False
) -> pb.DeleteTemplateResponse:
    request = pb.DeleteTemplateRequest(id=template_id, validate_only=validate_only)
    return await client.templates.DeleteTemplate(request, metadata=client.metadata)


async def promote(client: Client, version_id: str) -> pb.PromoteTemplateVersionResponse:
    request = pb.PromoteTemplateVersionRequest(id=version_id)
    return await client.templates.PromoteTemplateVersion(request, metadata=client.metadata)


async def get_template(client: Client, template_id: str) -> template_pb2.Template:
    request = pb.GetTemplateRequest(id=template_id)
    return (await client.templates.GetTemplate(request, metadata=client.metadata)).template


async def list_templates(client: Client, wanted: str = "", *, show_deleted: bool = False) -> list[str]:
    """The ids of the templates that this filter finds."""
    request = pb.ListTemplatesRequest(organization="acme", filter=wanted, show_deleted=show_deleted)
    answer = await client.templates.ListTemplates(request, metadata=client.metadata)
    return [template.id for template in answer.templates]


async def deeds(database: Database) -> Sequence[tuple[str, dict[str, object]]]:
    """The audit entries about templates, in their order."""
    entry = schema.AuditEvent
    statement = select(entry.action, entry.details).where(entry.resource == "template").order_by(entry.id)
    async with database.transaction("test") as tx:
        return [(action, details) for action, details in await tx.execute(statement)]


async def take(database: Database, job_id: JobId) -> None:
    """Have a daemon take a job."""
    async with database.transaction("test") as tx:
        await tx.run(
            b"UPDATE jobs SET status = 'running', lease_id = gen_random_uuid() WHERE id = %(id)s", {"id": job_id}
        )


async def job_status(database: Database, job_id: JobId) -> JobStatus:
    async with database.transaction("test") as tx:
        return (await tx.execute(select(schema.Job.status).where(schema.Job.id == job_id))).scalar_one()


async def park_one(database: Database, preset_id: str) -> UUID:
    """Leave one running prebuild of a preset as a person's stop of it does."""
    row = schema.Prebuild
    running = select(row.workspace_id).where(row.preset_id == UUID(preset_id), row.state == PrebuildState.RUNNING)
    async with database.transaction("test") as tx:
        workspace_id = (await tx.execute(running.limit(1))).scalar_one()
        await tx.execute(
            update(row).where(row.workspace_id == workspace_id).values(state=PrebuildState.STOPPED, ready_at=None)
        )
    return workspace_id


async def eventually_queued(
    stage: Stage, preset_id: str, count: int, transition: Transition = Transition.START
) -> Sequence[JobId]:
    """Wait until that many builds of a preset's pool wait for a daemon, and give their jobs."""

    async def are_queued() -> bool:
        return len(await stage.jobs(preset_id, transition)) == count

    await eventually(are_queued, what=f"{count} builds wait to {transition}")
    return await stage.jobs(preset_id, transition)
