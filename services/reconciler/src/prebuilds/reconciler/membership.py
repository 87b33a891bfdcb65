"""The system user's part in organisations: a member without roles, in the group `prebuilds` (behaviour section 9).

Postgres says where it has to take part: each organisation with a preset of an active version that asks for prebuilds.
The loop only adds what is missing and takes nothing away, so it can run anywhere, any number of times, in several
replicas at once. It looks at its start, with every tick, and when a template has changed.
"""

from __future__ import annotations

from datetime import timedelta

from prebuilds.chassis.loops import LoopMetrics, Wakeups, run_loop
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.events import EventKind
from prebuilds.events.bodies import Hint
from prebuilds.reconciler.queries.groups import Joined, join_system_user
from prebuilds.store.database import Database


class Membership:
    """Gives the system user its part in organisations."""

    def __init__(self, database: Database, *, interval: timedelta, metrics: LoopMetrics | None = None) -> None:
        """`interval` is that of the tick."""
        self._database = database
        self._interval = interval
        self._metrics = metrics
        self._wakeups = Wakeups()

    def start(self, tasks: BackgroundTasks) -> None:
        """Run in these tasks; the first run begins at once."""
        loop = run_loop(
            "membership", self.run_once, interval=self._interval, wakeups=self._wakeups, metrics=self._metrics
        )
        tasks.spawn("membership loop", loop)

    def hear(self, hint: Hint) -> None:
        """Take a hint from the event bus: a template that changed may have come to take part."""
        if hint.event is EventKind.TEMPLATE_CHANGED:
            self.look()

    def look(self) -> None:
        """Look again soon."""
        self._wakeups.wake()

    async def run_once(self) -> Joined:
        """Add what is missing by now, and say how much that was."""
        return await self._database.run("join system user", join_system_user)
