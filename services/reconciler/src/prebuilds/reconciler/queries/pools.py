"""What the reconciler reads of pools: all of them in a constant number of statements, or a few one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from prebuilds.domain.ids import (
    OrganizationId,
    PresetId,
    TemplateId,
    VersionId,
    WorkspaceId,
)
from prebuilds.domain.parameters import Parameter, ParameterType
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.queries.forms import Forms
from prebuilds.reconciler.rules.state import Activity, Counts, History, Prebuild, Quota
from prebuilds.reconciler.rules.values import PresetValue
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")
_IS_POOL: Final = b"""IS NOT NULL AND (
    p.desired_instances IS NOT NULL AND t.active_version_id = p.version_id AND NOT t.deleted AND t.deprecated = ''
    OR p.id IN (SELECT b.preset_id FROM prebuilds AS b)
    OR p.over_quota_since IS NOT NULL
)"""
"""Which presets have or should have prebuilds, or have something on record that a pass is to take off."""

PRESETS: Final = Forms.of(_queries["presets"], all_of_them=_IS_POOL)
COUNTS: Final = Forms.of(_queries["counts"])
PREBUILDS: Final = Forms.of(_queries["prebuilds"])
HISTORIES: Final = Forms.of(_queries["histories"])
HISTORIES_AT: Final = Forms.of(
    _queries["histories"]
    .replace(b"FROM builds AS b", b"FROM (SELECT * FROM builds WHERE created_at <= %(at)s) AS b")
    .replace(b"now()", b"%(at)s::timestamptz")
)
"""The same as of another moment than now."""
QUOTAS: Final = Forms.of(_queries["quotas"])


@dataclass(frozen=True, slots=True)
class Extent:
    """Which pools a pass is over; what is named in several ways is taken once."""

    everything: bool = False
    preset_ids: frozenset[PresetId] = frozenset()
    template_ids: frozenset[TemplateId] = frozenset()
    organization_ids: frozenset[OrganizationId] = frozenset()
    workspace_ids: frozenset[WorkspaceId] = frozenset()
    """Unclaimed prebuilds, for their pools."""
    neighbours_of: frozenset[PresetId] = frozenset()
    """Presets of which something has ended, for the pools that may have waited for its place or its cost: those of the
    template, where it has a `max_starting`, and those of the organisation that are over quota."""

    def __or__(self, other: Extent) -> Extent:
        """Give the pools of both."""
        return Extent(
            self.everything or other.everything,
            self.preset_ids | other.preset_ids,
            self.template_ids | other.template_ids,
            self.organization_ids | other.organization_ids,
            self.workspace_ids | other.workspace_ids,
            self.neighbours_of | other.neighbours_of,
        )

    def __bool__(self) -> bool:
        """Whether any pool is named."""
        return self != Extent()


@dataclass(frozen=True, slots=True)
class Moment:
    """When a snapshot was taken, by the database's clock."""

    at: datetime
    """The begin of the transaction: the present of all plans."""
    seen_at: datetime
    """After the snapshot was taken: whoever begins later than this sees all that it saw."""
    is_paused: bool
    """Whether reconciliation is paused for the whole deployment."""


class Taken(Enum):
    """What came of an attempt to lock a preset."""

    LOCKED = auto()
    HELD = auto()
    """Somebody else works on it."""
    SEEN_TO = auto()
    """Somebody else has worked on it, who saw at least what the snapshot saw."""


@dataclass(frozen=True, slots=True)
class PresetRow:
    """A preset that has a pool, as stored."""

    preset_id: PresetId
    organization_id: OrganizationId
    template_id: TemplateId
    version_id: VersionId
    preset_name: str
    template_name: str
    version_name: str
    is_active: bool
    desired_instances: int | None
    ttl: timedelta | None
    timezone: str
    status: PresetStatus
    status_since: datetime
    status_message: str
    last_invalidated_at: datetime | None
    retry_requested_at: datetime | None
    max_starting: int | None
    paused_at: datetime | None
    over_quota_since: datetime | None
    has_allowance: bool
    """Whether the organisation's group `prebuilds` has an allowance."""
    crons: tuple[str, ...]
    schedule_instances: tuple[int, ...]

    @property
    def key(self) -> PoolKey:
        """The names that the pool is worked on and remembered by."""
        return PoolKey(self.organization_id, self.template_id, self.version_id, self.preset_id, self.preset_name)


@dataclass(frozen=True, slots=True)
class _CountsRow:
    preset_id: PresetId
    running: int
    expired: int
    ready: int
    starting: int
    queued: int
    stopping: int
    deleting: int
    parked: int
    failed: int


@dataclass(frozen=True, slots=True)
class _PrebuildRow:
    preset_id: PresetId
    workspace_id: WorkspaceId
    created_at: datetime
    activity: Activity
    is_ready: bool


@dataclass(frozen=True, slots=True)
class _HistoryRow:
    preset_id: PresetId
    failed: int
    last_failed_at: datetime | None
    newest_failed_rank: int | None
    template_faults_in_a_row: int
    newest_at: datetime | None
    retry_succeeded: bool


@dataclass(frozen=True, slots=True)
class _TakenRow:
    is_locked: bool
    is_seen_to: bool


@dataclass(frozen=True, slots=True)
class _QuotaRow:
    preset_id: PresetId
    room: int
    cost: int


async def read_moment(tx: Transaction) -> Moment:
    """The moment of the transaction; the first statement of a snapshot."""
    moment = await tx.fetch_one(_queries["moment"], row=Moment)
    assert moment is not None, "a statement without tables has one row"  # noqa: S101 - what SQL promises
    return moment


async def find_pools(tx: Transaction, extent: Extent) -> Sequence[PresetId]:
    """The presets with a pool that an extent names: active ones, and inactive ones with work left."""
    found = await tx.fetch_all(
        _queries["pool_ids"],
        {
            "preset_ids": list(extent.preset_ids),
            "template_ids": list(extent.template_ids),
            "organization_ids": list(extent.organization_ids),
            "workspace_ids": list(extent.workspace_ids),
            "neighbours_of": list(extent.neighbours_of),
        },
        row=UUID,
    )
    return [PresetId(preset_id) for preset_id in found]


async def read_all_pools(tx: Transaction) -> Sequence[PresetRow]:
    """Read the presets of all pools: active ones, and inactive ones with work left."""
    return await tx.fetch_all(PRESETS.all, row=PresetRow)


async def read_presets(tx: Transaction, preset_ids: Collection[PresetId]) -> Sequence[PresetRow]:
    """Read the presets of pools; ids that do not exist are left out."""
    return await tx.fetch_all(*PRESETS.about(preset_ids), row=PresetRow)


async def count_prebuilds(tx: Transaction, preset_ids: Collection[PresetId] | None) -> Mapping[PresetId, Counts]:
    """Count the prebuilds of these pools in SQL, or of all; a pool without any is left out."""
    rows = await tx.fetch_all(*COUNTS.about(preset_ids), row=_CountsRow)
    return {
        row.preset_id: Counts(
            running=row.running,
            expired=row.expired,
            ready=row.ready,
            starting=row.starting,
            queued=row.queued,
            stopping=row.stopping,
            deleting=row.deleting,
            parked=row.parked,
            failed=row.failed,
        )
        for row in rows
    }


async def read_prebuilds(tx: Transaction, preset_ids: Collection[PresetId]) -> Mapping[PresetId, Sequence[Prebuild]]:
    """Read the prebuilds of a few pools one by one, oldest first; a pool without any is left out."""
    rows = await tx.fetch_all(*PREBUILDS.about(preset_ids), row=_PrebuildRow)
    found: defaultdict[PresetId, list[Prebuild]] = defaultdict(list)
    for row in rows:
        found[row.preset_id].append(Prebuild(row.workspace_id, row.created_at, row.activity, row.is_ready))
    return found


async def read_histories(
    tx: Transaction,
    preset_ids: Collection[PresetId] | None,
    *,
    lookback: timedelta,
    hard_limit: int,
    at: datetime | None = None,
) -> Mapping[PresetId, History]:
    """Read the failures of these pools, or of all, that count now or at another moment; without any: left out."""
    forms, moment = (HISTORIES, {}) if at is None else (HISTORIES_AT, {"at": at})
    statement, parameters = forms.about(preset_ids, lookback=lookback, hard_limit=hard_limit, **moment)
    rows = await tx.fetch_all(statement, parameters, row=_HistoryRow)
    return {
        row.preset_id: History(
            failed=row.failed,
            last_failed_at=row.last_failed_at,
            newest_failed_rank=row.newest_failed_rank,
            template_faults_in_a_row=row.template_faults_in_a_row,
            newest_at=row.newest_at,
            retry_succeeded=row.retry_succeeded,
        )
        for row in rows
    }


async def count_starting(tx: Transaction, template_ids: Sequence[TemplateId]) -> Mapping[TemplateId, int]:
    """Count what is starting of templates, all their presets together."""
    cursor = await tx.run(_queries["starting"], {"template_ids": list(template_ids)})
    return {TemplateId(template_id): starting for template_id, starting in await cursor.fetchall()}


async def take_preset(tx: Transaction, preset_id: PresetId, seen_at: datetime) -> Taken:
    """Lock a preset for the work that a snapshot of that moment has found; see there why some have been seen to.

    What was read before must be read again.
    """
    found = await tx.fetch_one(_queries["take_preset"], {"preset_id": preset_id, "seen_at": seen_at}, row=_TakenRow)
    if found is not None and found.is_locked:
        return Taken.LOCKED
    return Taken.SEEN_TO if found is not None and found.is_seen_to else Taken.HELD


async def find_seen_to(tx: Transaction, preset_ids: Collection[PresetId], seen_at: datetime) -> frozenset[PresetId]:
    """Which of these presets `take_preset` would say of that they have been seen to."""
    found = await tx.fetch_all(_queries["seen_to"], {"preset_ids": list(preset_ids), "seen_at": seen_at}, row=UUID)
    return frozenset(map(PresetId, found))


async def lock_preset(tx: Transaction, preset_id: PresetId) -> bool:
    """Lock a preset; False where somebody else holds it. What was read before must be read again."""
    return await tx.fetch_one(_queries["lock_preset"], {"preset_id": preset_id}, row=UUID) is not None


def value_of(name: str, type_: ParameterType | None, options: tuple[str, ...], value: str | None) -> PresetValue:
    """A parameter that a preset's prebuilds are built with; without a type the version has none of this name.

    It comes without the manifest's further rules for values: a version never changes after its push has checked them.
    """
    return PresetValue(Parameter(name, type_, None, mutable=False, options=options) if type_ else name, value)


async def read_quotas(tx: Transaction, preset_ids: Collection[PresetId]) -> Mapping[PresetId, Quota]:
    """What the allowances of these pools' organisations still admit; a pool without an allowance is left out.

    Who creates by it holds the organisation's quota (`store.quota`) since an earlier statement.
    """
    rows = await tx.fetch_all(*QUOTAS.about(preset_ids), row=_QuotaRow)
    return {row.preset_id: Quota(row.room, row.cost) for row in rows}


async def count_waiting(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, int]:
    """Count the people in the lines of presets."""
    cursor = await tx.run(_queries["waiting"], {"preset_ids": list(preset_ids)})
    return {PresetId(preset_id): people for preset_id, people in await cursor.fetchall()}
