"""TemplateService."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import MAX_PAGE_SIZE, by_name_and_id, read_page
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import (
    check_access,
    organization_for,
    template_for,
    template_named,
    version_for,
)
from prebuilds.reconciler.promoting import promote
from prebuilds.reconciler.pushing import PushOrder, push
from prebuilds.reconciler.queries.templates import find_templates
from prebuilds.reconciler.queries.versions import find_presets, find_versions
from prebuilds.reconciler.rpc.messages import preset_message, template_message, text_of, version_message
from prebuilds.reconciler.rules.manifest import check_autostart
from prebuilds.reconciler.templating import TemplateOrder, create_template
from prebuilds.store.database import Database
from prebuilds.v1 import template_service_pb2 as pb
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_VERSION_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_HOUR: Final = timedelta(hours=1)


class TemplateServicer(TemplateServiceServicer):
    """Templates, their versions and their presets."""

    def __init__(self, database: Database) -> None:
        """Reads and writes through this database."""
        self._database = database

    async def CreateTemplate(self, request: pb.CreateTemplateRequest, context: Context) -> pb.CreateTemplateResponse:
        """Make a template without a version."""
        order = _template_order(request)

        row = await create_template(self._database, current_caller(), order)

        return pb.CreateTemplateResponse(template=template_message(row))

    async def PushTemplateVersion(
        self, request: pb.PushTemplateVersionRequest, context: Context
    ) -> pb.PushTemplateVersionResponse:
        """Check an archive completely and store it as a new version."""
        fields = Fields()
        order = PushOrder(
            organization=fields.required("organization", request.organization),
            template=fields.name("template", request.template) if request.template else "",
            archive=request.archive,
            version_name=request.version_name,
            activate=request.activate,
            validate_only=request.validate_only,
            request_id=fields.request_id(request.request_id),
        )
        if order.version_name and _VERSION_NAME.fullmatch(order.version_name) is None:
            fields.wrong("version_name", "must be 1 to 63 letters, digits, hyphens, dots and underscores")
        fields.required("archive", "given" if request.archive else "")
        fields.done()

        pushed = await push(self._database, current_caller(), order)

        answer = pb.PushTemplateVersionResponse(
            version=version_message(pushed.version),
            presets=map(preset_message, pushed.presets),
            template=template_message(pushed.template),
            template_created=pushed.template_created,
        )
        return _without_identity(answer) if order.validate_only else answer

    async def PromoteTemplateVersion(
        self, request: pb.PromoteTemplateVersionRequest, context: Context
    ) -> pb.PromoteTemplateVersionResponse:
        """Make a version the active one."""
        version_id = read_id(request.id)

        promoted = await promote(self._database, current_caller(), version_id)

        return pb.PromoteTemplateVersionResponse(
            template=template_message(promoted.template),
            version=version_message(promoted.version),
            previous_version_id=text_of(promoted.previous_version_id),
        )

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.GetTemplateResponse:
        """Answer one template."""
        template_id = read_id(request.id)

        async with self._database.read("get template") as tx:
            row = await template_for(tx, current_caller(), template_id, Action.READ)

        return pb.GetTemplateResponse(template=template_message(row))

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        """Answer templates by name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        conditions = fields.filter(request.filter, ("name", "deprecated"))
        is_deprecated = conditions.truth("deprecated")
        page = read_page(fields, request, by_name_and_id)
        fields.done()
        after = page.after()

        async with self._database.read("list templates") as tx:
            scope = await organization_for(tx, current_caller(), organization, Resource.TEMPLATE, Action.READ)
            rows = await find_templates(
                tx,
                organization_id=scope.id,
                with_deleted=request.show_deleted,
                name=conditions.text("name"),
                is_deprecated=is_deprecated,
                after=after,
                limit=page.limit,
            )

        listed = page.cut(rows, lambda row: (row.name, row.id))
        return pb.ListTemplatesResponse(
            templates=map(template_message, listed.things), next_page_token=listed.next_token
        )

    async def GetTemplateVersion(
        self, request: pb.GetTemplateVersionRequest, context: Context
    ) -> pb.GetTemplateVersionResponse:
        """Answer one version with its presets."""
        version_id = read_id(request.id)

        async with self._database.read("get version", snapshot=True) as tx:
            row = await version_for(tx, current_caller(), version_id, Action.READ)
            presets = await find_presets(tx, version_id=row.id, limit=MAX_PAGE_SIZE)

        return pb.GetTemplateVersionResponse(version=version_message(row), presets=map(preset_message, presets))

    async def ListTemplateVersions(
        self, request: pb.ListTemplateVersionsRequest, context: Context
    ) -> pb.ListTemplateVersionsResponse:
        """Answer the versions of a template, newest first."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        template = fields.required("template", request.template)
        conditions = fields.filter(request.filter, ("name", "active"))
        is_active = conditions.truth("active")
        page = read_page(fields, request, _by_number)
        fields.done()
        before = page.after()

        async with self._database.read("list versions", snapshot=True) as tx:
            scope = await organization_for(tx, current_caller(), organization, Resource.TEMPLATE, Action.READ)
            rows = await find_versions(
                tx,
                template_id=(await template_named(tx, scope.id, template)).id,
                name=conditions.text("name"),
                is_active=is_active,
                before=before[0] if before else None,
                limit=page.limit,
            )

        listed = page.cut(rows, lambda row: (row.number,))
        return pb.ListTemplateVersionsResponse(
            versions=map(version_message, listed.things), next_page_token=listed.next_token
        )

    async def GetPreset(self, request: pb.GetPresetRequest, context: Context) -> pb.GetPresetResponse:
        """Answer one preset."""
        preset_id = read_id(request.id)

        async with self._database.read("get preset") as tx:
            found = await find_presets(tx, id_=preset_id)
        if not found:
            raise Refusal.not_found("preset", request.id)
        organization_id = found[0].organization_id
        check_access(current_caller(), organization_id, Resource.TEMPLATE, Action.READ, kind="preset", id_=preset_id)

        return pb.GetPresetResponse(preset=preset_message(found[0]))

    async def ListPresets(self, request: pb.ListPresetsRequest, context: Context) -> pb.ListPresetsResponse:
        """Answer the presets of a version, the default one first."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        template = fields.required("template", request.template)
        conditions = fields.filter(request.filter, ("name", "status", "has_pool"))
        status = conditions.word("status", PresetStatus)
        has_pool = conditions.truth("has_pool")
        page = read_page(fields, request, _by_default_and_name)
        fields.done()
        after = page.after()

        async with self._database.read("list presets", snapshot=True) as tx:
            scope = await organization_for(tx, current_caller(), organization, Resource.TEMPLATE, Action.READ)
            owner = await template_named(tx, scope.id, template)
            if not request.version and owner.active_version_id is None:
                raise Refusal(Reason.NO_ACTIVE_VERSION, f"template {owner.name!r} has no active version")
            named = request.version or text_of(owner.active_version_id)
            versions = await find_versions(tx, template_id=owner.id, named=named)
            if not versions:
                raise Refusal.not_found("template version", named)
            rows = await find_presets(
                tx,
                version_id=versions[0].id,
                name=conditions.text("name"),
                status=status,
                has_pool=has_pool,
                after=after,
                limit=page.limit,
            )

        listed = page.cut(rows, lambda row: (row.is_default, row.name))
        return pb.ListPresetsResponse(presets=map(preset_message, listed.things), next_page_token=listed.next_token)


def _by_number(texts: Sequence[str]) -> tuple[int]:
    (number,) = texts
    return (int(number),)


def _by_default_and_name(texts: Sequence[str]) -> tuple[bool, str]:
    is_default, name = texts
    return is_default == str(True), name


def _template_order(request: pb.CreateTemplateRequest) -> TemplateOrder:
    fields, template, lifecycle = Fields(), request.template, request.template.lifecycle
    order = TemplateOrder(
        organization=fields.required("organization", request.organization),
        name=fields.name("template.name", template.name),
        display_name=fields.at_most("template.display_name", template.display_name, 64),
        description=fields.at_most("template.description", template.description, 128),
        default_ttl=fields.duration(
            "template.lifecycle.ttl", lifecycle.ttl, least=timedelta(minutes=1), most=timedelta(days=30)
        )
        or None,
        autostart=lifecycle.autostart_schedule,
        time_til_dormant=fields.duration("template.lifecycle.time_til_dormant", lifecycle.time_til_dormant, least=_HOUR)
        or None,
        time_til_dormant_autodelete=fields.duration(
            "template.lifecycle.time_til_dormant_autodelete", lifecycle.time_til_dormant_autodelete, least=_HOUR
        )
        or None,
        max_starting=template.max_starting if template.HasField("max_starting") else None,
        request_id=fields.request_id(request.request_id),
    )
    try:
        check_autostart(order.autostart)
    except ValueError as error:
        fields.wrong("template.lifecycle.autostart_schedule", str(error))
    if order.max_starting is not None and order.max_starting < 1:
        fields.wrong("template.max_starting", "must be at least 1")
    fields.done()
    return order


def _without_identity(answer: pb.PushTemplateVersionResponse) -> pb.PushTemplateVersionResponse:
    """What would be stored, without the ids and times that nothing has."""
    for preset in answer.presets:
        preset.ClearField("id")
        preset.ClearField("version_id")
        preset.ClearField("create_time")
        if answer.template_created:
            preset.ClearField("template_id")
    version, template = answer.version, answer.template
    version.ClearField("id")
    version.ClearField("create_time")
    if template.active_version_name == version.name:
        template.ClearField("active_version_id")
    if answer.template_created:
        version.ClearField("template_id")
        template.ClearField("id")
        template.ClearField("create_time")
        template.ClearField("update_time")
    return answer
