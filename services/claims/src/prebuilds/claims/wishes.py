"""What a caller wishes of a creation, and the plan that is made of it and an offer before anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from prebuilds.chassis.patterns import matches
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.offers import Offer, Owner, Preset, Standing, Template
from prebuilds.claims.rules.matching import find_preset
from prebuilds.claims.rules.parameters import all_values, immutable_choices, provided_problems
from prebuilds.domain.claims import ClaimMode, MissReason
from prebuilds.domain.ids import OrganizationId, VersionId
from prebuilds.domain.refusals import Reason, Refusal, Violation


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a workspace, read."""

    organization: Named
    template: Named
    preset: Named | None
    """None: found by the parameters."""
    parameters: Mapping[str, str]
    name: str
    """Empty: one is made."""
    owner: Named | None
    """None: the caller."""
    mode: ClaimMode
    ttl: timedelta | None
    """None: as the template says; zero: for ever."""
    autostart: str | None
    """None: as the template says; empty: never."""
    request_id: str
    validate_only: bool = False

    def plain_values(self) -> dict[str, object]:
        """Give what makes this request another one, for its fingerprint."""
        return {
            "template": self.template.text,
            "preset": self.preset and self.preset.text,
            "parameters": dict(self.parameters),
            "name": self.name,
            "owner": self.owner and self.owner.text,
            "mode": self.mode.value,
            "ttl": None if self.ttl is None else self.ttl.total_seconds(),
            "autostart": self.autostart,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a creation comes to, but for what the pool holds at the moment."""

    organization_id: OrganizationId
    owner: Owner
    template: Template
    version_id: VersionId
    preset: Preset | None
    miss: MissReason | None
    """Why no pool is looked at; None: one is."""
    values: Mapping[str, str]
    """Every parameter's value in a cold build."""
    choices: Mapping[str, str]
    """The values given, for the claim build."""
    ttl: timedelta | None
    """None: for ever."""
    autostart: str


def make_plan(offer: Offer, wish: Wish) -> Plan:
    """Plan a creation (behaviour section 6).

    Refuses what was not found, a deprecated template, one without an active version, and all that is wrong with the
    parameters at once. A preset found by parameters does not fit where a prebuild could not have an immutable value
    that was given; with one that was named, such a value is an error. A cold build may have any.
    """
    owner, template, version_id = _found(offer, wish)
    is_warm = wish.mode is not ClaimMode.COLD
    preset = _preset(template, wish, is_warm=is_warm)
    fixed: Mapping[str, str] = preset.parameters if preset else {}
    problems = list(provided_problems(template.parameters, wish.parameters, fixed, matches))
    if preset is not None and is_warm and preset.has_pool:
        problems += [
            Violation(f"parameters.{name}", "is immutable: a prebuild keeps its own; mode COLD builds with another")
            for name in immutable_choices(template.parameters, wish.parameters, fixed)
        ]
    if problems:
        raise Refusal.invalid(*problems)
    ttl = template.default_ttl if wish.ttl is None else wish.ttl
    return Plan(
        organization_id=offer.organization_id,
        owner=owner,
        template=template,
        version_id=version_id,
        preset=preset,
        miss=_certain_miss(preset, wish.mode),
        values=all_values(template.parameters, wish.parameters, fixed),
        choices=wish.parameters,
        ttl=ttl or None,
        autostart=template.autostart if wish.autostart is None else wish.autostart,
    )


def require_usable(template: Template, wish: Wish, standing: Standing) -> None:
    """Refuse a template that takes no new workspaces: NOT_FOUND where it is deleted, else TEMPLATE_DEPRECATED."""
    if standing.deleted:
        raise Refusal.not_found("template", wish.template.text)
    if standing.deprecated:
        raise Refusal(
            Reason.TEMPLATE_DEPRECATED,
            f"template {template.name!r} is deprecated: {standing.deprecated}",
            metadata={"subject": f"template:{template.template_id}", "message": standing.deprecated},
        )


def _found(offer: Offer, wish: Wish) -> tuple[Owner, Template, VersionId]:
    template = offer.template
    if template is None:
        raise Refusal.not_found("template", wish.template.text)
    if offer.owner is None:
        raise Refusal.not_found("user", wish.owner.text if wish.owner else "")
    require_usable(template, wish, Standing(deleted=False, deprecated=template.deprecated))
    if template.version_id is None:
        raise Refusal(
            Reason.NO_ACTIVE_VERSION,
            f"template {template.name!r} has no active version",
            metadata={"subject": f"template:{template.template_id}"},
        )
    return offer.owner, template, template.version_id


def _preset(template: Template, wish: Wish, *, is_warm: bool) -> Preset | None:
    if wish.preset is not None:
        for preset in template.presets:
            if wish.preset.name == preset.name or wish.preset.id == preset.preset_id:
                return preset
        raise Refusal.not_found("preset", wish.preset.text)
    return find_preset(_fitting(template, wish.parameters, is_warm=is_warm), wish.parameters)


def _fitting(template: Template, parameters: Mapping[str, str], *, is_warm: bool) -> Sequence[Preset]:
    return [
        preset
        for preset in template.presets
        if not (is_warm and preset.has_pool and immutable_choices(template.parameters, parameters, preset.parameters))
    ]


def _certain_miss(preset: Preset | None, mode: ClaimMode) -> MissReason | None:
    if mode is ClaimMode.COLD:
        return MissReason.REQUESTED_COLD
    if preset is None:
        return MissReason.NO_MATCHING_PRESET
    return None if preset.has_pool else MissReason.NO_POOL
