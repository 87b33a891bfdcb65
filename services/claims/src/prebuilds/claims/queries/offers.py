"""What an organisation offers to a creation: the template with the parameters and presets of its active version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prebuilds.claims.queries.naming import Named
from prebuilds.claims.rules.misses import PoolFacts
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, UserId, VersionId, WorkspaceId
from prebuilds.domain.parameters import Parameter, ParameterType, ValueRules
from prebuilds.domain.pools import PresetStatus
from prebuilds.store.database import Database
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.claims.queries")


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset of the active version."""

    preset_id: PresetId
    name: str
    is_default: bool
    has_pool: bool
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Template:
    """A template as a creation sees it."""

    template_id: TemplateId
    name: str
    deprecated: str
    """The message for people; empty where it is not deprecated."""
    default_ttl: timedelta | None
    autostart: str
    version_id: VersionId | None
    parameters: tuple[Parameter, ...]
    presets: tuple[Preset, ...]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who shall own the workspace."""

    user_id: UserId
    name: str


@dataclass(frozen=True, slots=True)
class Offer:
    """All that a creation is decided by; None for what was not found."""

    looked_at: datetime
    """When all of this was so: the request's time by the database's clock."""
    organization_id: OrganizationId
    organization_name: str
    owner: Owner | None
    template: Template | None


@dataclass(frozen=True, slots=True)
class PoolNow:
    """A pool when nothing was claimed from it."""

    facts: PoolFacts
    eligible: int
    """Prebuilds that are eligible although nothing was claimed: others hold them for a moment."""


@dataclass(frozen=True, slots=True)
class WorkspaceVersion:
    """The version that a start is to build, and what the workspace has now."""

    version_id: VersionId | None
    """None: the template has no such version."""
    template_deleted: bool
    is_current: bool
    current: Mapping[str, str]
    """The values of the latest build."""
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a template still takes new workspaces."""

    deleted: bool
    deprecated: str
    """The message for people; empty where it is not deprecated."""


@dataclass(frozen=True, slots=True)
class _OfferRow:
    looked_at: datetime
    organization_id: OrganizationId
    organization_name: str
    owner_id: UserId | None
    owner_name: str | None
    template_id: TemplateId | None
    template_name: str | None
    deprecated: str | None
    default_ttl: timedelta | None
    autostart: str | None
    version_id: VersionId | None
    parameters: list[dict[str, Any]]
    validations: dict[str, dict[str, Any]]
    presets: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _PoolRow:
    has_pool: bool
    status: PresetStatus
    paused: bool
    ready: int
    prebuilds: int
    eligible: int
    older: int


@dataclass(frozen=True, slots=True)
class _VersionRow:
    version_id: VersionId | None
    version_name: str | None
    template_deleted: bool
    current: dict[str, str]
    parameters: list[dict[str, Any]]
    validations: dict[str, dict[str, Any]]
    is_current: bool | None


async def find_offer(
    database: Database, *, organization: Named, template: Named, owner: Named, caller_id: UserId
) -> Offer | None:
    """Find everything by one statement; None where there is no such organisation.

    An owner other than the caller is found among the organisation's members.
    """
    rows = await database.fetch_once(
        "find offer",
        _queries["offer"],
        {
            "organization_id": organization.id,
            "organization_name": organization.name,
            "template_id": template.id,
            "template_name": template.name,
            "owner_id": owner.id,
            "owner_name": owner.name,
            "caller_id": caller_id,
        },
        row=_OfferRow,
    )
    if not rows:
        return None
    row = rows[0]
    owner_found = None
    if row.owner_id is not None and row.owner_name is not None:
        owner_found = Owner(row.owner_id, row.owner_name)
    return Offer(row.looked_at, row.organization_id, row.organization_name, owner_found, _template(row))


async def read_pool(tx: Transaction, preset_id: PresetId) -> PoolNow | None:
    """Read a preset's pool, in a statement later than the claim that found nothing in it."""
    row = await tx.fetch_one(_queries["pool_facts"], {"preset_id": preset_id}, row=_PoolRow)
    if row is None:
        return None
    facts = PoolFacts(row.has_pool, row.status, row.paused, row.ready, row.prebuilds, row.older)
    return PoolNow(facts, row.eligible)


async def read_standing(tx: Transaction, template_id: TemplateId) -> Standing:
    """Read how a template stands now; it may have changed since the offer."""
    found = await tx.fetch_one(_queries["template_standing"], {"template_id": template_id}, row=Standing)
    return found or Standing(deleted=True, deprecated="")


async def find_version(tx: Transaction, workspace_id: WorkspaceId, version: Named | None) -> WorkspaceVersion | None:
    """Find the version that a start of the workspace is to build: the one named, else the one that it has."""
    row = await tx.fetch_one(
        _queries["version"],
        {
            "workspace_id": workspace_id,
            "version_id": version and version.id,
            "version_name": version and version.name,
        },
        row=_VersionRow,
    )
    if row is None:
        return None
    return WorkspaceVersion(
        row.version_id,
        row.template_deleted,
        bool(row.is_current),
        row.current,
        _parameters(row.parameters, row.validations),
    )


def _template(row: _OfferRow) -> Template | None:
    if row.template_id is None or row.template_name is None:
        return None
    return Template(
        row.template_id,
        row.template_name,
        row.deprecated or "",
        row.default_ttl,
        row.autostart or "",
        row.version_id,
        _parameters(row.parameters, row.validations),
        tuple(
            Preset(PresetId(UUID(each["id"])), each["name"], each["is_default"], each["has_pool"], each["parameters"])
            for each in row.presets
        ),
    )


def _parameters(
    rows: Sequence[Mapping[str, Any]], validations: Mapping[str, Mapping[str, Any]]
) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            each["name"],
            ParameterType(each["type"]),
            each["default"],
            each["mutable"],
            tuple(each["options"]),
            _rules(validations.get(each["name"], {})),
        )
        for each in rows
    )


def _rules(validation: Mapping[str, Any]) -> ValueRules:
    """As the manifest has it, checked at its push."""
    return ValueRules(
        validation.get("regex") or "", validation.get("min"), validation.get("max"), validation.get("error") or ""
    )
