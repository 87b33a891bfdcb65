"""One attempt at a creation: what it needs to know on its way, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prebuilds.claims.queries.views import BuildView, WorkspaceView
from prebuilds.claims.rules.misses import MESSAGES, PASSING, REFUSED_AS
from prebuilds.claims.wishes import Plan, Wish
from prebuilds.domain.claims import MissReason
from prebuilds.domain.ids import UserId
from prebuilds.domain.refusals import Refusal
from prebuilds.store.audit import Actor
from prebuilds.store.requests import RequestKey

RETRY_AFTER: Final = timedelta(seconds=5)
"""When a caller that was refused for a miss may ask again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A creation on its way."""

    plan: Plan
    wish: Wish
    initiator_id: UserId
    actor: Actor
    key: RequestKey
    content: bytes
    """The request's fingerprint."""
    name: str
    requested_at: datetime
    """By the database's clock."""


@dataclass(frozen=True, slots=True)
class Creation:
    """A workspace that was created, with the build that was queued for it; without a miss it was claimed."""

    workspace: WorkspaceView
    build: BuildView
    miss: MissReason | None


class UsedBeforeError(Exception):
    """The request id is on record: roll back and read the first answer."""


class MissedError(Exception):
    """A miss that is to be refused: roll back."""

    def __init__(self, reason: MissReason) -> None:
        super().__init__(reason)
        self.reason = reason


def refused(miss: MissReason) -> Refusal:
    """Refuse a creation that had to be warm, with the reason of the miss; to come again where that may help."""
    return Refusal(REFUSED_AS[miss], MESSAGES[miss], retry_after=RETRY_AFTER if miss in PASSING else None)
