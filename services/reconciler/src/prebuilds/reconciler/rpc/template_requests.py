"""Reading the requests of TemplateService that change something."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, TypeAlias

from prebuilds.chassis.fields import Fields
from prebuilds.domain.names import is_id
from prebuilds.reconciler.pushing import PushOrder
from prebuilds.reconciler.rules.manifest import check_autostart
from prebuilds.reconciler.templating import TemplateOrder
from prebuilds.reconciler.updating import COLUMNS, TemplateValue, UpdateOrder
from prebuilds.v1 import template_pb2
from prebuilds.v1 import template_service_pb2 as pb

_VERSION_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_HOUR: Final = timedelta(hours=1)
_MAX_MESSAGE: Final = 1000
"""Characters of a deprecation's message."""

_Read: TypeAlias = Callable[[Fields, template_pb2.Template], TemplateValue]


def read_create(request: pb.CreateTemplateRequest) -> TemplateOrder:
    """Read CreateTemplate."""
    fields, template = Fields(), request.template
    order = TemplateOrder(
        organization=fields.required("organization", request.organization),
        name=fields.name("template.name", template.name),
        display_name=_display_name(fields, template),
        description=_description(fields, template),
        default_ttl=_ttl(fields, template),
        autostart=_autostart(fields, template),
        time_til_dormant=_time_til_dormant(fields, template),
        time_til_dormant_autodelete=_time_til_dormant_autodelete(fields, template),
        max_starting=_max_starting(fields, template),
        request_id=fields.request_id(request.request_id),
    )
    fields.done()
    return order


def read_push(request: pb.PushTemplateVersionRequest) -> PushOrder:
    """Read PushTemplateVersion, but for what is in the archive."""
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
    return order


def read_update(request: pb.UpdateTemplateRequest) -> UpdateOrder:
    """Read UpdateTemplate: of the template only its id and what the mask names."""
    fields, template = Fields(), request.template
    template_id = fields.id("template.id", template.id)
    named = fields.mask(request.update_mask.paths, list(COLUMNS))
    values = {path: read(fields, template) for path, read in _READERS.items() if path in named}
    fields.done()
    return UpdateOrder(template_id, values)


def read_message(fields: Fields, text: str) -> str:
    """Read why a template is deprecated; empty where it is not."""
    fields.check("message", "must say something, or be empty", is_good=not text or not text.isspace())
    return fields.at_most("message", text, _MAX_MESSAGE)


def _display_name(fields: Fields, template: template_pb2.Template) -> str:
    return fields.at_most("template.display_name", template.display_name, 64)


def _description(fields: Fields, template: template_pb2.Template) -> str:
    return fields.at_most("template.description", template.description, 128)


def _ttl(fields: Fields, template: template_pb2.Template) -> timedelta | None:
    least, most = timedelta(minutes=1), timedelta(days=30)
    return fields.duration("template.lifecycle.ttl", template.lifecycle.ttl, least=least, most=most) or None


def _autostart(fields: Fields, template: template_pb2.Template) -> str:
    text = template.lifecycle.autostart_schedule
    try:
        return check_autostart(text)
    except ValueError as error:
        fields.wrong("template.lifecycle.autostart_schedule", str(error))
        return ""


def _time_til_dormant(fields: Fields, template: template_pb2.Template) -> timedelta | None:
    length = template.lifecycle.time_til_dormant
    return fields.duration("template.lifecycle.time_til_dormant", length, least=_HOUR) or None


def _time_til_dormant_autodelete(fields: Fields, template: template_pb2.Template) -> timedelta | None:
    length = template.lifecycle.time_til_dormant_autodelete
    return fields.duration("template.lifecycle.time_til_dormant_autodelete", length, least=_HOUR) or None


def _max_starting(fields: Fields, template: template_pb2.Template) -> int | None:
    if not template.HasField("max_starting"):
        return None
    fields.check("template.max_starting", "must be at least 1", is_good=template.max_starting >= 1)
    return template.max_starting


_READERS: Final[Mapping[str, _Read]] = {
    "display_name": _display_name,
    "description": _description,
    "lifecycle.ttl": _ttl,
    "lifecycle.autostart_schedule": _autostart,
    "lifecycle.time_til_dormant": _time_til_dormant,
    "lifecycle.time_til_dormant_autodelete": _time_til_dormant_autodelete,
    "max_starting": _max_starting,
}
