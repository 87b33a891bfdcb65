"""What wakes the reconciler: its tick, and hints from events (design section 7).

Every hint only says where to look. With NATS away the tick alone brings every pool to its target; hints make it quick.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Final
from uuid import UUID

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.loops import LoopMetrics, run_loop
from prebuilds.chassis.loops import Wakeups as LoopWakeups
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, WorkspaceId
from prebuilds.events.bodies import Hint
from prebuilds.events.consumers import Subscription
from prebuilds.events.subjects import DEPLOYMENT
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.v1 import event_pb2

COALESCED_WITHIN: Final = timedelta(milliseconds=20)

PASSES_AT_ONCE: Final = 8
"""Over what hints name, at most; while so many are under way, the next one waits and gathers all that comes."""

SUBSCRIPTION: Final = Subscription.shared(
    "reconciler",
    EventKind.CLAIMED,
    EventKind.BUILD_CHANGED,
    EventKind.TEMPLATE_CHANGED,
    EventKind.SETTINGS_CHANGED,
)
"""One consumer for all replicas: each hint is one replica's work, the others would find nothing to do."""

EVERYTHING: Final = Extent(everything=True)


class Wakeups:
    """Turns ticks and hints into passes."""

    def __init__(
        self,
        reconciler: Reconciler,
        hints: Hints,
        *,
        interval: timedelta,
        metrics: LoopMetrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`interval` is that of the tick."""
        self._reconciler = reconciler
        self._hints = hints
        self._interval = interval
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._listening = asyncio.Lock()
        """One loop listens at a time: the others work, or wait to listen next."""

    def start(self, tasks: BackgroundTasks) -> None:
        """Run all loops in these tasks; the tick's first pass begins at once.

        They are several, so that a long pass does not keep a claimed prebuild's replacement waiting: neither the tick's
        nor one that many hints have led to.
        """
        following = [("hints", self._follow_hints, timedelta())] * PASSES_AT_ONCE
        for name, run_once, interval in (("tick", self._tick, self._interval), *following):
            loop = run_loop(
                name,
                run_once,
                interval=interval,
                wakeups=LoopWakeups(self._clock),
                metrics=self._metrics,
                clock=self._clock,
            )
            tasks.spawn(f"{name} loop", loop)

    async def hear(self, hint: Hint) -> None:
        """Take a hint from the event bus."""
        self._hints.add(extent_of(hint))

    async def look_at_everything(self) -> None:
        """Look at everything: the consumer was made anew, hints may have been missed."""
        self._hints.add(EVERYTHING)

    async def _tick(self) -> PassStatistics:
        return await self._reconciler.run_pass(EVERYTHING)

    async def _follow_hints(self) -> PassStatistics | None:
        async with self._listening:
            await self._hints.wakeups.wait(self._interval)
            await self._clock.sleep(COALESCED_WITHIN.total_seconds())
            extent = self._hints.take()
        if not extent:
            return None
        try:
            return await self._reconciler.run_pass(extent)
        except Exception:
            self._hints.put_back(extent)
            raise


def extent_of(hint: Hint) -> Extent:
    """The pools that an event is about; where its body does not say, those that its subject leads to."""
    presets = frozenset(_presets_named_by(hint))
    if isinstance(hint.message, event_pb2.BuildChanged) and presets and not hint.message.is_prebuild:
        return Extent()  # a person's workspace, in no pool
    match hint.event:
        case EventKind.CLAIMED | EventKind.BUILD_CHANGED:
            if presets:
                # Of a build the end is what matters to others. A claim's place is its own pool's to fill.
                ended = presets if hint.event is EventKind.BUILD_CHANGED else frozenset[PresetId]()
                return Extent(preset_ids=presets, neighbours_of=ended)
            if hint.event is EventKind.CLAIMED and hint.message is None:
                # The workspace is in no pool any more and nothing says which one it left.
                return EVERYTHING
            return Extent(workspace_ids=frozenset({WorkspaceId(hint.subject_id)}))
        case EventKind.TEMPLATE_CHANGED:
            return (
                Extent(preset_ids=presets) if presets else Extent(template_ids=frozenset({TemplateId(hint.subject_id)}))
            )
        case EventKind.SETTINGS_CHANGED:
            return _extent_of_setting(hint)
        case _:
            return Extent()


def _extent_of_setting(hint: Hint) -> Extent:
    if hint.subject_id == DEPLOYMENT:
        return EVERYTHING
    # Ids of different things never coincide, so one of these is right and the others match nothing.
    return Extent(
        preset_ids=frozenset({PresetId(hint.subject_id)}),
        template_ids=frozenset({TemplateId(hint.subject_id)}),
        organization_ids=frozenset({OrganizationId(hint.subject_id)}),
    )


def _presets_named_by(hint: Hint) -> Iterator[PresetId]:
    match hint.message:
        case event_pb2.Claimed() | event_pb2.BuildChanged() as message:
            texts = [message.preset_id]
        case event_pb2.TemplateChanged() as message:
            texts = list(message.preset_ids)
        case _:
            texts = []
    for text in texts:
        # What is no id is left out: a body of another version is still the hint that its subject says.
        with contextlib.suppress(ValueError):
            yield PresetId(UUID(text))
