"""All pools of an extent in one statement, those that are alike in one row.

A plan is made of what a preset asks for, of counts and of recent failures; who the pool is does not matter. Of ten
thousand pools most are alike, so a pass reads and plans a few hundred rows, and names the pools only where there is
work. What cannot be alike stands alone: presets with failures, and those that an allowance bounds. Alike by
`max_starting` are those of one template.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.queries.forms import Forms
from prebuilds.reconciler.queries.pools import COUNTS, HISTORIES, PRESETS
from prebuilds.reconciler.rules.state import Counts, History
from prebuilds.store.transactions import Transaction


def _survey(presets: bytes, counts: bytes, histories: bytes) -> bytes:
    """Put together what the three read, by all columns that a plan goes by."""
    return (
        b"""-- Survey these pools: those that are alike in one row.
        SELECT
            array_agg(p.preset_id) AS preset_ids, p.is_active, p.desired_instances, p.timezone, p.crons,
            p.schedule_instances, p.status, p.retry_requested_at, p.max_starting,
            p.paused_at IS NOT NULL AS is_paused, p.over_quota_since IS NOT NULL AS is_over_quota,
            CASE WHEN p.has_allowance THEN p.organization_id END AS bounded_organization_id,
            CASE WHEN p.max_starting IS NOT NULL THEN p.template_id END AS bounded_template_id,
            coalesce(c.running, 0) AS running, coalesce(c.expired, 0) AS expired,
            coalesce(c.starting, 0) AS starting, coalesce(c.queued, 0) AS queued,
            coalesce(h.failed, 0) AS failed, h.last_failed_at, h.newest_failed_rank,
            coalesce(h.template_faults_in_a_row, 0) AS template_faults_in_a_row, h.newest_at,
            coalesce(h.retry_succeeded, false) AS retry_succeeded
        FROM ("""
        + presets
        + b""") AS p
        LEFT JOIN ("""
        + counts
        + b""") AS c ON c.preset_id = p.preset_id
        LEFT JOIN ("""
        + histories
        + b""") AS h ON h.preset_id = p.preset_id
        GROUP BY
            2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
            CASE WHEN p.has_allowance THEN p.preset_id END
        """
    )


_SURVEY: Final = Forms(
    one=_survey(PRESETS.one, COUNTS.one, HISTORIES.one),
    some=_survey(PRESETS.some, COUNTS.some, HISTORIES.some),
    all=_survey(PRESETS.all, COUNTS.all, HISTORIES.all),
)


@dataclass(frozen=True, slots=True)
class Situation:
    """Pools that are alike."""

    preset_ids: tuple[PresetId, ...]
    """One or more; one where there is a `bounded_organization_id`."""
    is_active: bool
    desired_instances: int | None
    timezone: str
    crons: tuple[str, ...]
    schedule_instances: tuple[int, ...]
    status: PresetStatus
    retry_requested_at: datetime | None
    max_starting: int | None
    is_paused: bool
    """Whether preset or template is."""
    is_over_quota: bool
    bounded_organization_id: OrganizationId | None
    """The organisation, where an allowance bounds its prebuilds."""
    bounded_template_id: TemplateId | None
    """The template, where it has a `max_starting`."""
    running: int
    expired: int
    starting: int
    queued: int
    failed: int
    last_failed_at: datetime | None
    newest_failed_rank: int | None
    template_faults_in_a_row: int
    newest_at: datetime | None
    retry_succeeded: bool

    @property
    def counts(self) -> Counts:
        """What a plan goes by of the prebuilds of each."""
        return Counts(running=self.running, expired=self.expired, starting=self.starting, queued=self.queued)

    @property
    def history(self) -> History:
        """The failures of each."""
        return History(
            failed=self.failed,
            last_failed_at=self.last_failed_at,
            newest_failed_rank=self.newest_failed_rank,
            template_faults_in_a_row=self.template_faults_in_a_row,
            newest_at=self.newest_at,
            retry_succeeded=self.retry_succeeded,
        )


async def survey(
    tx: Transaction, preset_ids: Collection[PresetId] | None, *, lookback: timedelta, hard_limit: int
) -> Sequence[Situation]:
    """Read these pools, or all, in one statement; arguments as of `read_histories`."""
    return await tx.fetch_all(*_SURVEY.about(preset_ids, lookback=lookback, hard_limit=hard_limit), row=Situation)
