"""TemplateService."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name_and_id, read_page
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.promoting import Promoting
from prebuilds.reconciler.pushing import Pushing
from prebuilds.reconciler.reading import PresetFilter, TemplateFilter, TemplateReading, VersionFilter
from prebuilds.reconciler.retiring import Retiring
from prebuilds.reconciler.rpc.messages import preset_message, template_message, text_of, version_message
from prebuilds.reconciler.rpc.template_requests import read_create, read_message, read_push, read_update
from prebuilds.reconciler.templating import Templating
from prebuilds.reconciler.updating import Updating
from prebuilds.v1 import template_service_pb2 as pb
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class TemplateServicer(TemplateServiceServicer):
    """Templates, their versions and their presets."""

    def __init__(
        self,
        *,
        templating: Templating,
        pushing: Pushing,
        promoting: Promoting,
        updating: Updating,
        retiring: Retiring,
        reading: TemplateReading,
    ) -> None:
        """Reads requests for these."""
        self._templating = templating
        self._pushing = pushing
        self._promoting = promoting
        self._updating = updating
        self._retiring = retiring
        self._reading = reading

    async def CreateTemplate(self, request: pb.CreateTemplateRequest, context: Context) -> pb.CreateTemplateResponse:
        """Make a template without a version."""
        order = read_create(request)

        row = await self._templating.create(current_caller(), order)

        return pb.CreateTemplateResponse(template=template_message(row))

    async def PushTemplateVersion(
        self, request: pb.PushTemplateVersionRequest, context: Context
    ) -> pb.PushTemplateVersionResponse:
        """Check an archive completely and store it as a new version."""
        order = read_push(request)

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

    async def UpdateTemplate(self, request: pb.UpdateTemplateRequest, context: Context) -> pb.UpdateTemplateResponse:
        """Change the fields that the mask names."""
        order = read_update(request)

        row = await self._updating.update(current_caller(), order)

        return pb.UpdateTemplateResponse(template=template_message(row))

    async def DeprecateTemplate(
        self, request: pb.DeprecateTemplateRequest, context: Context
    ) -> pb.DeprecateTemplateResponse:
        """Deprecate a template, or lift that."""
        fields = Fields()
        template_id, message = fields.id("id", request.id), read_message(fields, request.message)
        fields.done()

        row = await self._retiring.deprecate(current_caller(), template_id, message)

        return pb.DeprecateTemplateResponse(template=template_message(row))

    async def DeleteTemplate(self, request: pb.DeleteTemplateRequest, context: Context) -> pb.DeleteTemplateResponse:
        """Delete a template, or count only what there is of it."""
        template_id = read_id(request.id)

        deleted = await self._retiring.delete(current_caller(), template_id, validate_only=request.validate_only)

        return pb.DeleteTemplateResponse(
            template=template_message(deleted.template),
            workspace_count=deleted.use.workspaces,
            prebuild_count=deleted.use.prebuilds,
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
