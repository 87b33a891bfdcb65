"""One pool with all that its plan and its builds are made of, in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from prebuilds.domain.ids import PresetId, WorkspaceId
from prebuilds.domain.parameters import ParameterType
from prebuilds.reconciler.queries.pools import HISTORIES, PREBUILDS, PRESETS, PresetRow, value_of
from prebuilds.reconciler.rules.state import Activity, History, Prebuild
from prebuilds.reconciler.rules.values import PresetValue
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")

_LOOK: Final = (
    b"""-- Look at one pool.
    SELECT
        preset.*,
        moment.at, moment.is_paused,
        own.workspace_ids, own.created_ats, own.activities, own.are_ready,
        coalesce(h.failed, 0) AS failed, h.last_failed_at, h.newest_failed_rank,
        coalesce(h.template_faults_in_a_row, 0) AS template_faults_in_a_row, h.newest_at,
        coalesce(h.retry_succeeded, false) AS retry_succeeded,
        given.parameters
    FROM ("""
    + PRESETS.one
    + b""") AS preset
    CROSS JOIN ("""
    + _queries["moment"]
    + b""") AS moment
    CROSS JOIN (
        SELECT
            coalesce(array_agg(b.workspace_id), '{}') AS workspace_ids,
            coalesce(array_agg(b.created_at), '{}') AS created_ats,
            coalesce(array_agg(b.activity), '{}') AS activities,
            coalesce(array_agg(b.is_ready), '{}') AS are_ready
        FROM ("""
    + PREBUILDS.one
    + b""") AS b
    ) AS own
    CROSS JOIN (
        SELECT coalesce(jsonb_agg(v), '[]') AS parameters
        FROM ("""
    + _queries["preset_values"]
    + b""") AS v
    ) AS given
    LEFT JOIN ("""
    + HISTORIES.one
    + b""") AS h ON true
    """
)


@dataclass(frozen=True, slots=True)
class _LookRow(PresetRow):
    at: datetime
    is_paused: bool
    workspace_ids: tuple[WorkspaceId, ...]
    created_ats: tuple[datetime, ...]
    activities: tuple[Activity, ...]
    are_ready: tuple[bool, ...]
    failed: int
    last_failed_at: datetime | None
    newest_failed_rank: int | None
    template_faults_in_a_row: int
    newest_at: datetime | None
    retry_succeeded: bool
    parameters: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """What one pool is at a moment."""

    at: datetime
    """By the database's clock: the begin of the transaction."""
    is_paused: bool
    """Whether preset, template or the whole deployment is."""
    preset: PresetRow
    prebuilds: Sequence[Prebuild]
    history: History
    values: Sequence[PresetValue]
    """What its prebuilds are built with; see `value_of`."""


async def look_at(tx: Transaction, preset_id: PresetId, *, lookback: timedelta, hard_limit: int) -> Look | None:
    """Look at a pool; None for a preset that does not exist. Arguments as of `read_histories`."""
    row = await tx.fetch_one(
        _LOOK, {"preset_id": preset_id, "lookback": lookback, "hard_limit": hard_limit}, row=_LookRow
    )
    if row is None:
        return None
    return Look(
        at=row.at,
        is_paused=row.is_paused or row.paused_at is not None,
        preset=row,
        prebuilds=list(map(Prebuild, row.workspace_ids, row.created_ats, row.activities, row.are_ready)),
        history=History(
            failed=row.failed,
            last_failed_at=row.last_failed_at,
            newest_failed_rank=row.newest_failed_rank,
            template_faults_in_a_row=row.template_faults_in_a_row,
            newest_at=row.newest_at,
            retry_succeeded=row.retry_succeeded,
        ),
        values=[
            value_of(each["name"], each["type"] and ParameterType(each["type"]), tuple(each["options"]), each["value"])
            for each in row.parameters
        ],
    )
