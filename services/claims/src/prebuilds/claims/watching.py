"""Watching a workspace until what was begun has come to its end.

Postgres is authoritative: a watcher reads the workspace, tells it where it differs from what it told last, and reads
again at each hint for that workspace and after a second without one. It is registered before it first reads, so that
nothing falls between; a hint while it reads makes it read once more. Lost hints cost at most that second, and a resume
token is nothing but the digest of what was told last: any process can go on from it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.claims.access import visible_workspace
from prebuilds.claims.queries.views import WorkspaceView
from prebuilds.claims.queries.workspaces import read_workspaces
from prebuilds.claims.rules.standing import Ended, how_it_ended
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database

LOOK_AGAIN: Final = timedelta(seconds=1)
"""How long a watcher waits for a hint before it looks by itself."""

EVENTS: Final = frozenset(
    {
        EventKind.CLAIMED,
        EventKind.BUILD_CHANGED,
        EventKind.AGENT_READY,
        EventKind.ACKNOWLEDGED,
        EventKind.HANDOVER_DUE,
        EventKind.HANDOVER_ENDED,
    }
)
"""What may change what a watcher tells; each is about a workspace."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A workspace at one moment."""

    workspace: WorkspaceView
    token: str


class Watchers:
    """Who waits for hints about which workspace."""

    def __init__(self) -> None:
        """Nobody at first."""
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    def hint(self, workspace_id: UUID) -> None:
        """Make those who watch it look again."""
        for event in self._waiting.get(workspace_id, ()):
            event.set()

    def hint_all(self) -> None:
        """Make everybody look again: hints may have been lost."""
        for workspace_id in tuple(self._waiting):
            self.hint(workspace_id)

    def __len__(self) -> int:
        """How many workspaces are watched."""
        return len(self._waiting)

    @contextmanager
    def watching(self, workspace_id: UUID) -> Generator[asyncio.Event]:
        """Give an event that hints set, until the block is left."""
        event = asyncio.Event()
        self._waiting.setdefault(workspace_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[workspace_id].discard(event)
            if not self._waiting[workspace_id]:
                del self._waiting[workspace_id]


class Watching:
    """Watches workspaces for callers."""

    def __init__(self, database: Database, watchers: Watchers) -> None:
        """Read from this database when these are hinted."""
        self._database = database
        self._watchers = watchers

    async def watch(self, caller: Caller, workspace_id: WorkspaceId, resume_token: str) -> AsyncGenerator[Sight]:
        """Give the workspace now and at each change; ends when it ended well, else raises the refusal of its end."""
        told = resume_token
        with self._watchers.watching(workspace_id) as hinted:
            while True:
                hinted.clear()
                workspace = await self._look(caller, workspace_id)
                ended = how_it_ended(workspace.status, workspace.claim_generation, workspace.agent_standings)
                token = _digest(workspace)
                if token != told:
                    yield Sight(workspace, token)
                    told = token
                if ended is not None:
                    if ended.reason is None:
                        return
                    raise _refusal(workspace, ended, ended.reason)
                try:
                    async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                        await hinted.wait()
                except TimeoutError:
                    continue

    async def _look(self, caller: Caller, workspace_id: WorkspaceId) -> WorkspaceView:
        async with self._database.read("watch workspace") as tx:
            await visible_workspace(tx, caller, workspace_id)
            (workspace,) = await read_workspaces(tx, [workspace_id])
        return workspace


def _digest(workspace: WorkspaceView) -> str:
    return hashlib.sha256(repr(workspace).encode()).hexdigest()[:32]


def _refusal(workspace: WorkspaceView, ended: Ended, reason: Reason) -> Refusal:
    build = workspace.build
    metadata = {"subject": f"build:{build.id}", "build_id": str(build.id)}
    match reason:
        case Reason.BUILD_CANCELED:
            return Refusal(reason, "the build was cancelled", metadata=metadata)
        case Reason.STARTUP_FAILED if ended.agent is not None:
            agent = {
                "subject": f"agent:{ended.agent.name}",
                "agent": ended.agent.name,
                "state": ended.agent.state.value,
            }
            return Refusal(reason, f"the startup of agent {ended.agent.name!r} did not end well", metadata=agent)
        case _:
            metadata["failure_class"] = build.failure_class.value if build.failure_class else ""
            return Refusal(
                reason, f"the build failed: {build.error}" if build.error else "the build failed", metadata=metadata
            )
