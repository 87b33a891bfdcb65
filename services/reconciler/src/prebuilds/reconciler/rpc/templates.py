"""TemplateService."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name_and_id, read_page
from prebuilds.domain.names import is_id
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.promoting import Promoting
from prebuilds.reconciler.pushing import Pushing, PushOrder
from prebuilds.reconciler.reading import PresetFilter, TemplateFilter, TemplateReading, VersionFilter
from prebuilds.reconciler.rpc.messages import preset_message, template_message, text_of, version_message
from prebuilds.reconciler.rules.manifest import check_autostart
from prebuilds.reconciler.templating import TemplateOrder, Templating
from prebuilds.v1 import template_service_pb2 as pb
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_VERSION_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_HOUR: Final = timedelta(hours=1)


class TemplateServicer(TemplateServiceServicer):
    """Templates, their versions and their presets."""

    def __init__(
        self, templating: Templating, pushing: Pushing, promoting: Promoting, reading: TemplateReading
    ) -> None:
        """Reads requests for these."""
        self._templating = templating
        self._pushing = pushing
        self._promoting = promoting
        self._reading = reading

    async def CreateTemplate(self, request: pb.CreateTemplateRequest, context: Context) -> pb.CreateTemplateResponse:
        """Make a template without a version."""
        order = _template_order(request)

        row = await self._templating.create(current_caller(), order)

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
        if order.version_name and (_VERSION_NAME.fullmatch(order.version_name) is None or is_id(order.version_name)):
            fields.wrong("version_name", "must be 1 to 63 letters, digits, hyphens, dots and underscores, and no UUID")
        fields.required("archive", "given" if request.archive else "")
        fields.done()

        pushed = await self._pushing.push(current_caller(), order)

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

        promoted = await self._promoting.promote(current_caller(), version_id)

        return pb.PromoteTemplateVersionResponse(
            template=template_message(promoted.template),
            version=version_message(promoted.version),
            previous_version_id=text_of(promoted.previous_version_id),
        )

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: Context) -> pb.GetTemplateResponse:
        """Answer one template."""
        template_id = read_id(request.id)

        row = await self._reading.template(current_caller(), template_id)

        return pb.GetTemplateResponse(template=template_message(row))

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        """Answer templates by name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        conditions = fields.filter(request.filter, ("name", "deprecated"))
        wanted = TemplateFilter(
            name=conditions.text("name"),
            is_deprecated=conditions.truth("deprecated"),
            show_deleted=request.show_deleted,
        )
        page = read_page(fields, request, by_name_and_id)
        fields.done()

        listed = await self._reading.templates(current_caller(), organization, wanted, page)

        return pb.ListTemplatesResponse(
            templates=map(template_message, listed.things), next_page_token=listed.next_token
        )

    async def GetTemplateVersion(
        self, request: pb.GetTemplateVersionRequest, context: Context
    ) -> pb.GetTemplateVersionResponse:
        """Answer one version with its presets."""
        version_id = read_id(request.id)

        row, presets = await self._reading.version(current_caller(), version_id)

        return pb.GetTemplateVersionResponse(version=version_message(row), presets=map(preset_message, presets))

    async def ListTemplateVersions(
        self, request: pb.ListTemplateVersionsRequest, context: Context
    ) -> pb.ListTemplateVersionsResponse:
        """Answer the versions of a template, newest first."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        template = fields.required("template", request.template)
        conditions = fields.filter(request.filter, ("name", "active"))
        wanted = VersionFilter(name=conditions.text("name"), is_active=conditions.truth("active"))
        page = read_page(fields, request, _by_number)
        fields.done()

        listed = await self._reading.versions(current_caller(), organization, template, wanted, page)

        return pb.ListTemplateVersionsResponse(
            versions=map(version_message, listed.things), next_page_token=listed.next_token
        )

    async def GetPreset(self, request: pb.GetPresetRequest, context: Context) -> pb.GetPresetResponse:
        """Answer one preset."""
        preset_id = read_id(request.id)

        row = await self._reading.preset(current_caller(), preset_id)

        return pb.GetPresetResponse(preset=preset_message(row))

    async def ListPresets(self, request: pb.ListPresetsRequest, context: Context) -> pb.ListPresetsResponse:
        """Answer the presets of a version, the default one first."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        template = fields.required("template", request.template)
        conditions = fields.filter(request.filter, ("name", "status", "has_pool"))
        wanted = PresetFilter(
            version=request.version,
            name=conditions.text("name"),
            status=conditions.word("status", PresetStatus),
            has_pool=conditions.truth("has_pool"),
        )
        page = read_page(fields, request, _by_default_and_name)
        fields.done()

        listed = await self._reading.presets(current_caller(), organization, template, wanted, page)

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
