"""Invalidating presets (behaviour section 5): their present prebuilds expire at once, the next pass replaces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import PresetId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, organization_for, template_named
from prebuilds.reconciler.news import tell_of_presets
from prebuilds.reconciler.queries.steering import count_unexpired, invalidate, lock_presets, read_names
from prebuilds.reconciler.queries.templates import lock_template
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class InvalidationOrder:
    """Which presets' prebuilds are to be replaced."""

    organization: str
    template: str
    presets: Sequence[str]
    """Names or ids; empty: all of the active version."""
    validate_only: bool


@dataclass(frozen=True, slots=True)
class Invalidated:
    """What was invalidated, or would be."""

    preset_ids: Sequence[PresetId]
    prebuilds: int
    """Running ones that expire by it."""
    at: datetime | None
    """None where nothing was changed."""


class Invalidating:
    """Invalidates presets."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def invalidate(self, caller: Caller, order: InvalidationOrder) -> Invalidated:
        """Expire the present prebuilds of presets of the active version, or only count them.

        No claim that begins after the commit takes one. Locks the template, which keeps its active version, then the
        presets. Refuses NOT_FOUND, TEMPLATE_DELETED, NO_ACTIVE_VERSION.
        """

        async def work(tx: Transaction) -> Invalidated:
            scope = await organization_for(tx, caller, order.organization, Resource.POOL, Action.UPDATE)
            template = await template_named(tx, scope.id, order.template)
            current = template if order.validate_only else await lock_template(tx, template.id)
            if current.deleted:
                raise Refusal(Reason.TEMPLATE_DELETED, f"template {template.name!r} is deleted")
            if current.active_version_id is None:
                raise Refusal(Reason.NO_ACTIVE_VERSION, f"template {template.name!r} has no active version")
            presets = _meant(await read_names(tx, current.active_version_id), order.presets)
            ids = list(presets)
            if order.validate_only or not ids:
                return Invalidated(ids, await count_unexpired(tx, ids), None)
            await lock_presets(tx, ids)
            prebuilds = await count_unexpired(tx, ids)
            at = await invalidate(tx, ids)
            details = {"presets": list(presets.values()), "prebuilds": prebuilds}
            entry = AuditEntry(
                actor_of(caller), "invalidate", "template", template.id, template.name, scope.id, details
            )
            await record_deed(tx, entry)
            await tell_of_presets(tx, scope.id, template.id, ids)
            return Invalidated(ids, prebuilds, at)

        return await self._database.run("invalidate presets", work)


def _meant(presets: Mapping[PresetId, str], named: Sequence[str]) -> Mapping[PresetId, str]:
    """The presets with a pool that are named, by name or id, in the order of all; without names all of them."""
    if not named:
        return presets
    unknown = set(named).difference(presets.values(), map(str, presets))
    if unknown:
        raise Refusal.not_found("pool", next(name for name in named if name in unknown))
    wanted = set(named)
    return {id_: name for id_, name in presets.items() if name in wanted or str(id_) in wanted}
