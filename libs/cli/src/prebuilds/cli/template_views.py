"""Templates and presets in words."""

from __future__ import annotations

from typing import Final

from prebuilds.cli.moments import span
from prebuilds.cli.output import Cell, age, word
from prebuilds.v1 import template_pb2, template_service_pb2

PRESET_HEADERS: Final = ("preset", "default", "status", "prebuilds", "schedules", "ttl", "parameters")


def concerned(response: template_service_pb2.DeleteTemplateResponse) -> str:
    """What a deletion concerns."""
    workspaces, prebuilds = response.workspace_count, response.prebuild_count
    return (
        f"{prebuilds} {'prebuild goes' if prebuilds == 1 else 'prebuilds go'},"
        f" {workspaces} {'workspace' if workspaces == 1 else 'workspaces'} of people"
        f" {'stays' if workspaces == 1 else 'stay'} and cannot be started again"
    )


def facts(template: template_pb2.Template) -> dict[str, Cell]:
    """What there is to say of a template."""
    lifecycle = template.lifecycle
    lengths = {
        "ttl": lifecycle.ttl,
        "dormant after": lifecycle.time_til_dormant,
        "deleted when dormant for": lifecycle.time_til_dormant_autodelete,
    }
    lived = [f"{name} {span(length.ToTimedelta())}" for name, length in lengths.items() if length.ToTimedelta()]
    lived += [f"autostart {lifecycle.autostart_schedule}"] if lifecycle.autostart_schedule else []
    told: dict[str, Cell] = {
        "name": template.name,
        "description": template.description or "-",
        "id": template.id,
        "status": status(template),
        "active": template.active_version_name or "no version yet",
        "claims": word(template_pb2.ClaimStrategy, template.claim_strategy, "CLAIM_STRATEGY_"),
        "lifecycle": ", ".join(lived) or "-",
        "max starting": str(template.max_starting) if template.HasField("max_starting") else "unlimited",
        "age": age(template.create_time),
    }
    if template.deprecation_message:
        told["deprecated"] = template.deprecation_message
    return told


def status(template: template_pb2.Template) -> str:
    """How a template is, in a word."""
    if template.deleted:
        return "deleted"
    return "deprecated" if template.deprecation_message else "in use"


def preset_row(preset: template_pb2.Preset) -> tuple[Cell, ...]:
    """A preset below PRESET_HEADERS."""
    policy = preset.prebuilds
    schedules = "; ".join(f"{schedule.cron} -> {schedule.instances}" for schedule in policy.schedules)
    ttl = policy.ttl.ToTimedelta()
    return (
        preset.name,
        "yes" if preset.is_default else "",
        preset_status(preset),
        instances(preset),
        f"{schedules} ({policy.timezone})" if schedules else "-",
        span(ttl) if ttl else "-",
        parameters(preset),
    )


def preset_status(preset: template_pb2.Preset) -> str:
    """How a preset is, in a word or two."""
    return word(template_pb2.PresetStatus, preset.status, "PRESET_STATUS_").replace("_", " ")


def instances(preset: template_pb2.Preset) -> str:
    """How many prebuilds a preset asks for."""
    return str(preset.prebuilds.instances) if preset.HasField("prebuilds") else "-"


def parameters(preset: template_pb2.Preset) -> str:
    """The values that a preset fixes."""
    return " ".join(f"{name}={value}" for name, value in sorted(preset.parameters.items()))
