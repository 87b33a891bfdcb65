"""What the reconciler reads of pools: all of them in a constant number of statements, or a few one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from prebuilds.domain.ids import (
    SYSTEM_USER_ID,
    OrganizationId,
    PresetId,
    TemplateId,
    VersionId,
    WorkspaceId,
)
from prebuilds.domain.parameters import Parameter, ParameterType
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.state import Activity, Counts, History, Prebuild, Quota
from prebuilds.reconciler.rules.values import PresetValue
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")
_HISTORIES: Final = _queries["histories"]
_HISTORIES_AT: Final = _HISTORIES.replace(
    b"FROM builds AS b", b"FROM (SELECT * FROM builds WHERE created_at <= %(at)s) AS b"
).replace(b"now()", b"%(at)s::timestamptz")
"""The same as of another moment than now."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Which pools a pass is over; what is named in several ways is taken once."""

    everything: bool = False
    preset_ids: frozenset[PresetId] = frozenset()
    template_ids: frozenset[TemplateId] = frozenset()
    organization_ids: frozenset[OrganizationId] = frozenset()
    workspace_ids: frozenset[WorkspaceId] = frozenset()
    """Unclaimed prebuilds, for their pools."""

    def __or__(self, other: Extent) -> Extent:
        """Give the pools of both."""
        return Extent(
            self.everything or other.everything,
            self.preset_ids | other.preset_ids,
            self.template_ids | other.template_ids,
            self.organization_ids | other.organization_ids,
            self.workspace_ids | other.workspace_ids,
        )

    def __bool__(self) -> bool:
        """Whether any pool is named."""
        return self != Extent()


@dataclass(frozen=True, slots=True)
class Moment:
    """When a snapshot was taken, by the database's clock."""

    at: datetime
    live_gateways: tuple[UUID, ...]
    is_paused: bool
    """Whether reconciliation is paused for the whole deployment."""


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
class _QuotaRow:
    preset_id: PresetId
    room: int
    cost: int


@dataclass(frozen=True, slots=True)
class _Value:
    name: str
    type: ParameterType | None
    options: tuple[str, ...]
    value: str | None


async def read_moment(tx: Transaction) -> Moment:
    """The moment of the transaction; the first statement of a snapshot."""
    moment = await tx.fetch_one(_queries["moment"], row=Moment)
    assert moment is not None, "an aggregate without groups has one row"  # noqa: S101 - what SQL promises
    return moment


async def find_pools(tx: Transaction, extent: Extent) -> Sequence[PresetId]:
    """The presets within the extent that have a pool: active ones, and inactive ones that still have prebuilds."""
    found = await tx.fetch_all(
        _queries["pool_ids"],
        {
            "everything": extent.everything,
            "preset_ids": list(extent.preset_ids),
            "template_ids": list(extent.template_ids),
            "organization_ids": list(extent.organization_ids),
            "workspace_ids": list(extent.workspace_ids),
        },
        row=UUID,
    )
    return [PresetId(preset_id) for preset_id in found]


async def read_presets(tx: Transaction, preset_ids: Sequence[PresetId]) -> Sequence[PresetRow]:
    """Read the presets of pools; ids that do not exist are left out."""
    return await tx.fetch_all(_queries["presets"], {"preset_ids": list(preset_ids)}, row=PresetRow)


async def count_prebuilds(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, Counts]:
    """Count the prebuilds of pools in SQL; a pool without any is left out."""
    rows = await tx.fetch_all(_queries["counts"], {"preset_ids": list(preset_ids)}, row=_CountsRow)
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


async def read_prebuilds(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, Sequence[Prebuild]]:
    """Read the prebuilds of a few pools one by one, oldest first; a pool without any is left out."""
    rows = await tx.fetch_all(_queries["prebuilds"], {"preset_ids": list(preset_ids)}, row=_PrebuildRow)
    found: defaultdict[PresetId, list[Prebuild]] = defaultdict(list)
    for row in rows:
        found[row.preset_id].append(Prebuild(row.workspace_id, row.created_at, row.activity, row.is_ready))
    return found


async def read_histories(
    tx: Transaction,
    preset_ids: Sequence[PresetId],
    *,
    lookback: timedelta,
    hard_limit: int,
    at: datetime | None = None,
) -> Mapping[PresetId, History]:
    """Read the failures that count now, or at another moment; a preset without any is left out."""
    rows = await tx.fetch_all(
        _HISTORIES if at is None else _HISTORIES_AT,
        {
            **({} if at is None else {"at": at}),
            "preset_ids": list(preset_ids),
            "lookback": lookback,
            "hard_limit": hard_limit,
            "system_user_id": SYSTEM_USER_ID,
        },
        row=_HistoryRow,
    )
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


async def lock_preset(tx: Transaction, preset_id: PresetId) -> bool:
    """Lock a preset; False where somebody else holds it. What was read before must be read again."""
    return await tx.fetch_one(_queries["lock_preset"], {"preset_id": preset_id}, row=UUID) is not None


async def read_values(tx: Transaction, preset_id: PresetId) -> Sequence[PresetValue]:
    """The parameters that a preset's prebuilds are built with, in their order.

    They come without the manifest's further rules for values: a version never changes after its push has checked them.
    """
    rows = await tx.fetch_all(_queries["preset_values"], {"preset_id": preset_id}, row=_Value)
    return [
        PresetValue(
            Parameter(row.name, row.type, None, mutable=False, options=row.options) if row.type else row.name, row.value
        )
        for row in rows
    ]


async def read_quotas(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, Quota]:
    """What the allowances of these pools' organisations still admit; a pool without an allowance is left out.

    Who creates by it holds the organisation's quota (`store.quota`) since an earlier statement.
    """
    rows = await tx.fetch_all(
        _queries["quotas"], {"preset_ids": list(preset_ids), "system_user_id": SYSTEM_USER_ID}, row=_QuotaRow
    )
    return {row.preset_id: Quota(row.room, row.cost) for row in rows}


async def count_waiting(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, int]:
    """Count the people in the lines of presets."""
    cursor = await tx.run(_queries["waiting"], {"preset_ids": list(preset_ids)})
    return {PresetId(preset_id): people for preset_id, people in await cursor.fetchall()}
