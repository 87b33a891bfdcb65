"""The life of an agent process: the thin shell around `rules`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, assert_never
from uuid import uuid4

from prebuilds.domain.agents import AgentState
from prebuilds.sdk.agent import rules
from prebuilds.sdk.agent.client import Gateway
from prebuilds.sdk.agent.rules import Answer, BeginAgain, StopAsking, TryAgain
from prebuilds.sdk.agent.tracing import HandoverTrace
from prebuilds.sdk.agent.work import AgentStatus, Started, StartFailed, StartTimedOut, Work
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.v1.agent_pb2 import Manifest, Reinit

FAREWELL: Final = timedelta(seconds=2)
"""How long each of the last two reports may take."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pacing:
    """Time and chance as the agent sees them."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    fraction: Callable[[], float] = random.random
    """A number in [0, 1), another one at each call."""


async def run_agent(
    gateway: Gateway,
    work: Work,
    *,
    stopping: asyncio.Event | None = None,
    on_change: Callable[[AgentStatus], None] | None = None,
    process: str | None = None,
    pacing: Pacing | None = None,
    farewell: timedelta = FAREWELL,
) -> None:
    """Run `work` by the gateway's word until `stopping` is set or the task is cancelled (behaviour section 8).

    Returns (or passes the cancellation on) when the work has been stopped; SHUTTING_DOWN and OFF are then reported as
    far as the gateway answers within `farewell` each. That the gateway is away, refuses or hangs never ends it.
    `on_change` is told each change of the agent's status, in its event loop. `process` is the random id of this
    process (default: made here); one agent runs in it at a time.
    """
    agent = _Agent(gateway, work, process or uuid4().hex, on_change or (lambda _: None), pacing or Pacing())
    life = asyncio.ensure_future(agent.live())
    stop = asyncio.ensure_future((stopping or asyncio.Event()).wait())
    try:
        await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
    finally:
        await _cancel(life, stop)
        await agent.end(farewell)


class _Agent:
    def __init__(
        self, gateway: Gateway, work: Work, process: str, on_change: Callable[[AgentStatus], None], pacing: Pacing
    ) -> None:
        self._gateway = gateway
        self._work = work
        self._on_change = on_change
        self._pacing = pacing
        self._status = AgentStatus(process, AgentState.CREATED)
        self._entry = 0
        self._generation: int | None = None
        """The generation that was entered last; they only rise."""
        self._startup: asyncio.Task[None] | None = None
        self._state_changed = asyncio.Event()
        self._stream_failures = rules.NO_FAILURES
        self._trace = HandoverTrace()

    async def live(self) -> None:
        """Begin, run, and begin again; ends only by cancellation."""
        due = 0
        while True:
            manifest = await self._begin(due)
            await self._enter(manifest)
            outcome = await self._accompany(manifest)
            match outcome:
                case Reinit():
                    _log.info("asked to reinitialize", extra={"generation": outcome.generation})
                    self._trace.begin(outcome.traceparent)
                    due = outcome.generation
                    await self._halt()
                case BeginAgain(after):
                    self._trace.leave()
                    await self._rest(after)

    async def end(self, farewell: timedelta) -> None:
        """Stop the work, and say so to whoever listens."""
        self._change(state=AgentState.SHUTTING_DOWN)
        saying = asyncio.ensure_future(self._say(AgentState.SHUTTING_DOWN, farewell))
        try:
            await self._halt()
        finally:
            self._trace.end()
            await asyncio.wait({saying}, timeout=farewell.total_seconds())
            await _cancel(saying)
        self._change(state=AgentState.OFF)
        await self._say(AgentState.OFF, farewell)

    async def _begin(self, due: int) -> Manifest:
        """Begin an incarnation; its manifest is of the generation that is due or of a later one."""
        self._entry += 1
        failures = rules.NO_FAILURES
        while True:
            try:
                manifest = await self._gateway.get_manifest(self._status.process, self._entry)
            except PrebuildsError as error:
                answer = rules.answer_of(error.code.name, error.reason)
            else:
                if manifest.generation >= due:
                    return manifest
                # The gateway that asked for it knew more. The same entry would get the same manifest for ever.
                _log.warning("manifest is older than asked for", extra={"generation": manifest.generation, "due": due})
                answer = Answer.FAULT
                self._entry += 1
            failures = failures.and_one(answer)
            match rules.after_call(answer, failures, self._pacing.fraction()):
                case TryAgain(after):
                    _log.info("manifest not answered", extra={"answer": answer, "again_in": after.total_seconds()})
                    await self._sleep(after)
                case BeginAgain(after):
                    await self._rest(after)
                    self._entry += 1
                    failures = rules.NO_FAILURES

    async def _enter(self, manifest: Manifest) -> None:
        """Start the work of a new generation; at one already entered only the incarnation is new."""
        if not rules.is_to_be_entered(self._generation, manifest.generation):
            self._change(incarnation=manifest.incarnation, is_superseded=False, is_asking=True)
            return
        await self._halt()
        self._generation = manifest.generation
        self._status = AgentStatus(
            self._status.process, AgentState.STARTING, manifest=manifest, incarnation=manifest.incarnation
        )
        self._change()
        self._startup = asyncio.ensure_future(self._start(manifest))

    async def _start(self, manifest: Manifest) -> None:
        try:
            result = await self._work.start(manifest)
        except Exception as error:  # noqa: BLE001 - what a startup raises is its result; the agent goes on
            _log.exception("startup raised")
            result = StartFailed(str(error) or type(error).__name__)
        match result:
            case Started():
                self._change(state=AgentState.READY)
            case StartFailed(error):
                self._change(state=AgentState.START_ERROR, error=error)
            case StartTimedOut(error):
                self._change(state=AgentState.START_TIMEOUT, error=error)
            case _:
                assert_never(result)
        self._trace.end()

    async def _accompany(self, manifest: Manifest) -> Reinit | BeginAgain:
        """Report and ask, until there is a reason to begin again. Asking does not wait for the startup's end.

        A startup may take minutes or hang, and neither may delay a handover or make the agent look disconnected.
        """
        reporting = asyncio.ensure_future(self._report(manifest.incarnation))
        asking = asyncio.ensure_future(self._ask(manifest.incarnation))
        try:
            await asyncio.wait({reporting, asking}, return_when=asyncio.FIRST_COMPLETED)
            if not reporting.done():
                asked = asking.result()
                if asked is not None:
                    return asked
            # Where both have ended, that another process has begun decides.
            return await reporting
        finally:
            await _cancel(reporting, asking)

    async def _report(self, incarnation: int) -> BeginAgain:
        """Repeat the present state until it is answered, then wait for the next one."""
        failures = rules.NO_FAILURES
        answered: tuple[AgentState, str] | None = None
        while True:
            self._state_changed.clear()
            present = (self._status.state, self._status.error)
            if present == answered:
                await self._state_changed.wait()
                continue
            try:
                await self._gateway.report_state(incarnation, *present)
            except PrebuildsError as error:
                answer = rules.answer_of(error.code.name, error.reason)
            else:
                answered, failures = present, rules.NO_FAILURES
                continue
            failures = failures.and_one(answer)
            match rules.after_call(answer, failures, self._pacing.fraction()):
                case BeginAgain() as again:
                    return again
                case TryAgain(after):
                    _log.info("report not answered", extra={"answer": answer, "again_in": after.total_seconds()})
                    await self._sleep(after)

    async def _ask(self, incarnation: int) -> Reinit | BeginAgain | None:
        """Hold a stream until a `Reinit` counts (that), another process has begun, or nothing will follow (None)."""
        attempt = 0
        while True:
            attempt += 1
            opened = self._pacing.monotonic()
            answer = Answer.OK
            try:
                async with aclosing(self._gateway.stream_reinit(incarnation, attempt)) as stream:
                    async for reinit in stream:
                        if rules.is_due(self._generation or 0, reinit.generation):
                            return reinit
                        _log.info("reinit ignored", extra={"generation": reinit.generation})
            except PrebuildsError as error:
                answer = rules.answer_of(error.code.name, error.reason)
            was_open = timedelta(seconds=self._pacing.monotonic() - opened)
            self._stream_failures = rules.still_counting(self._stream_failures, was_open).and_one(answer)
            match rules.after_stream(answer, self._stream_failures, self._pacing.fraction()):
                case StopAsking():
                    _log.info("stopped asking", extra={"answer": answer})
                    self._change(is_asking=False)
                    return None
                case BeginAgain() as again:
                    return again
                case TryAgain(after):
                    _log.info("stream ended", extra={"answer": answer, "again_in": after.total_seconds()})
                    await self._sleep(after)

    async def _rest(self, after: timedelta) -> None:
        _log.warning("another process has begun with this token", extra={"again_in": after.total_seconds()})
        self._change(is_superseded=True)
        await self._sleep(after)

    async def _halt(self) -> None:
        if self._startup is not None:
            await _cancel(self._startup)
            self._startup = None
            await self._work.stop()

    async def _say(self, state: AgentState, limit: timedelta) -> None:
        """One attempt, to a gateway that may be gone: who asks nothing says nothing either."""
        if self._status.incarnation == 0 or self._status.is_superseded:
            return
        try:
            await self._gateway.report_state(self._status.incarnation, state, timeout=limit)
        except PrebuildsError as error:
            _log.info("last report not answered", extra={"state": state, "error": error.message})

    async def _sleep(self, after: timedelta) -> None:
        await self._pacing.sleep(after.total_seconds())

    def _change(
        self,
        *,
        state: AgentState | None = None,
        error: str = "",
        incarnation: int | None = None,
        is_superseded: bool | None = None,
        is_asking: bool | None = None,
    ) -> None:
        now = self._status
        if state is not None and now.state.may_become(state):
            now = replace(now, state=state, error=error)
        self._status = replace(
            now,
            incarnation=now.incarnation if incarnation is None else incarnation,
            is_superseded=now.is_superseded if is_superseded is None else is_superseded,
            is_asking=now.is_asking if is_asking is None else is_asking,
        )
        self._state_changed.set()
        self._on_change(self._status)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
