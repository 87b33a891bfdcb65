"""Which prebuilds that failed, or are still there against their mark, are removed, and when (behaviour section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from prebuilds.domain.ids import WorkspaceId

FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)

MOST_FAILURES_THAT_MATTER: Final = 7
"""Failed deletes in a row from which on the pause grows no more."""


class RemovalReason(StrEnum):
    """Why a prebuild is removed, as history tells it."""

    RETENTION = "retention"
    """Kept for inspection long enough."""
    SURPLUS = "retention_surplus"
    """More are kept than the pool wants prebuilds."""
    DELETE_FAILED = "delete_failed"
    """It was marked for deletion before, and that failed."""
    MARKED = "marked"
    """It was marked for deletion before, that failed, and somebody has started or stopped it since."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A prebuild that failed or was canceled, or one marked for deletion of which no build is under way."""

    workspace_id: WorkspaceId
    created_at: datetime
    ended_at: datetime
    """When its latest build ended; of one that was built but dead: when that was found."""
    failed_deletes: int = 0
    """Its newest builds in a row that are deletes without success; counted up to `MOST_FAILURES_THAT_MATTER`."""
    is_marked: bool = False
    """Whether it is marked for deletion; nobody can claim it any more, whatever was built since."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A prebuild that is to go now."""

    workspace_id: WorkspaceId
    reason: RemovalReason


def what_to_remove(ended: Sequence[Ended], desired: int, now: datetime, *, keep_for: timedelta) -> list[Removal]:
    """Say which of a pool's ended prebuilds are to go at this moment, oldest first, ties by id.

    1. One whose delete failed: once its pause is over. It is on its way out, so it counts for nothing else.
    2. One that is marked all the same, because somebody started or stopped it since: `keep_for` after that build, which
       is their time to look at it. It counts for nothing else either.
    3. Of the others the oldest beyond `max(1, desired)`: at once.
    4. Of the rest those that ended `keep_for` ago or earlier.
    """
    oldest_first = sorted(ended, key=lambda each: (each.created_at, each.workspace_id))
    kept = [each for each in oldest_first if each.failed_deletes == 0 and not each.is_marked]
    surplus = {each.workspace_id for each in kept[: max(len(kept) - max(1, desired), 0)]}
    removals: list[Removal] = []
    for each in oldest_first:
        if each.failed_deletes > 0:
            reason, due_at = RemovalReason.DELETE_FAILED, each.ended_at + pause_after(each.failed_deletes)
        elif each.is_marked:
            reason, due_at = RemovalReason.MARKED, each.ended_at + keep_for
        elif each.workspace_id in surplus:
            reason, due_at = RemovalReason.SURPLUS, now
        else:
            reason, due_at = RemovalReason.RETENTION, each.ended_at + keep_for
        if due_at <= now:
            removals.append(Removal(each.workspace_id, reason))
    return removals


def pause_after(failed_deletes: int) -> timedelta:
    """How long to wait after that many failed deletes in a row, at least one: a minute, doubling to an hour."""
    return min(FIRST_PAUSE * 2 ** (min(failed_deletes, MOST_FAILURES_THAT_MATTER) - 1), LONGEST_PAUSE)
