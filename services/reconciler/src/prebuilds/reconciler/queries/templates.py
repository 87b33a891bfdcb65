"""Templates: reading them, and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from prebuilds.domain.ids import OrganizationId, TemplateId, VersionId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import TemplateRow
from prebuilds.reconciler.rules.durations import parse_duration
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import Template
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_NAME_TAKEN: Final = "uq_templates_name_live"
_TRIES: Final = 3
"""How often a name's template may be deleted just when somebody finds it."""

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """What is stored of a template that has no version yet."""

    name: str
    display_name: str
    description: str
    default_ttl: timedelta | None
    autostart: str
    time_til_dormant: timedelta | None
    time_til_dormant_autodelete: timedelta | None
    max_starting: int | None


@dataclass(frozen=True, slots=True)
class LockedTemplate:
    """What its lock keeps as it is."""

    id: TemplateId
    active_version_id: VersionId | None
    deleted: bool = False
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """What there is of a template."""

    workspaces: int
    """People's."""
    prebuilds: int
    """Those that drain when the template is deleted: parked and failed ones are left alone."""


async def find_templates(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    organization_id: OrganizationId | None = None,
    named: str | None = None,
    with_deleted: bool = False,
    name: str | None = None,
    is_deprecated: bool | None = None,
    after: tuple[str, UUID] | None = None,
    limit: int = 1,
) -> Sequence[TemplateRow]:
    """Find templates by name; `named` is a name or an id, `after` the last name and id of the page before."""
    parameters = {
        "id": id_,
        "organization_id": organization_id,
        "named": named,
        "with_deleted": with_deleted,
        "name": name,
        "is_deprecated": is_deprecated,
        "after": after[0] if after else None,
        "after_id": after[1] if after else None,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_templates"], parameters, row=TemplateRow)


async def insert_template(
    tx: Transaction, id_: TemplateId, organization_id: OrganizationId, template: NewTemplate
) -> None:
    """Insert a template. Refuses NAME_TAKEN."""
    try:
        await tx.execute(insert(Template).values(id=id_, organization_id=organization_id, **asdict(template)))
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise Refusal(Reason.NAME_TAKEN, f"there is a template named {template.name!r}") from violation


async def lock_template(tx: Transaction, id_: TemplateId) -> LockedTemplate:
    """Lock a template that exists, be it deleted."""
    statement = select(Template.active_version_id, Template.deleted).where(Template.id == id_)
    active_version_id, deleted = (await tx.execute(statement.with_for_update(key_share=True))).one()
    return LockedTemplate(id_, _version_id(active_version_id), deleted)


async def lock_templates_of(tx: Transaction, organization_id: OrganizationId) -> list[VersionId]:
    """Lock all templates of an organisation that are not deleted, by id; gives their active versions."""
    statement = select(Template.active_version_id).where(
        Template.organization_id == organization_id, Template.deleted.is_(False)
    )
    active = (await tx.execute(statement.order_by(Template.id).with_for_update(key_share=True))).scalars()
    return [VersionId(id_) for id_ in active if id_ is not None]


async def make_or_lock_template(
    tx: Transaction, organization_id: OrganizationId, name: str, *, description: str
) -> LockedTemplate:
    """Insert a template where none has the name, else lock the one that has it; two at once make one template.

    Refuses TRANSACTION_CONFLICT where one after the other is deleted just when it is found.
    """
    made = (
        upsert(Template)
        .values(organization_id=organization_id, name=name, description=description)
        .on_conflict_do_nothing(index_elements=[Template.organization_id, Template.name], index_where=~Template.deleted)
        .returning(Template.id)
    )
    there = (
        select(Template.id, Template.active_version_id)
        .where(Template.organization_id == organization_id, Template.name == name, Template.deleted.is_(False))
        .with_for_update(key_share=True)
    )
    for _ in range(_TRIES):
        new_id = await tx.scalar(made)
        if new_id is not None:
            return LockedTemplate(TemplateId(new_id), None, is_new=True)
        # A later statement: whoever made it meanwhile was invisible to the one above.
        row = (await tx.execute(there)).one_or_none()
        if row is not None:
            return LockedTemplate(TemplateId(row[0]), _version_id(row[1]))
    raise Refusal(Reason.TRANSACTION_CONFLICT, f"templates named {name!r} come and go; push again")


async def update_template(tx: Transaction, id_: TemplateId, values: Mapping[str, object]) -> None:
    """Set columns of a locked template."""
    await tx.execute(update(Template).where(Template.id == id_).values(**values, updated_at=func.now()))


async def count_use(tx: Transaction, organization_id: OrganizationId, id_: TemplateId) -> TemplateUse:
    """Count what there is of a template, at one moment."""
    parameters = {"organization_id": organization_id, "template_id": id_}
    use = await tx.fetch_one(_queries["template_use"], parameters, row=TemplateUse)
    return use or TemplateUse(0, 0)


async def set_active_version(
    tx: Transaction, template_id: TemplateId, version_id: VersionId, manifest: Manifest
) -> None:
    """Point a locked template to a version, with the strategy and what its manifest says about the lifecycle."""
    values: dict[str, object] = {"active_version_id": version_id, "claim_strategy": manifest.claim_strategy}
    lifecycle = manifest.lifecycle
    if lifecycle is not None:
        durations = {
            "default_ttl": lifecycle.ttl,
            "time_til_dormant": lifecycle.time_til_dormant,
            "time_til_dormant_autodelete": lifecycle.time_til_dormant_autodelete,
        }
        values |= {name: _positive(text) for name, text in durations.items() if text is not None}
        if lifecycle.autostart is not None:
            values["autostart"] = lifecycle.autostart
    await update_template(tx, template_id, values)


def _positive(text: str) -> timedelta | None:
    """A length of time; None where it is zero, which means never."""
    return parse_duration(text) or None


def _version_id(stored: UUID | None) -> VersionId | None:
    return None if stored is None else VersionId(stored)
