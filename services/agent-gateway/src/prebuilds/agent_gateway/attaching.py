"""The reinit streams: what each held stream gets, looked up for many at once (behaviour section 8).

Postgres is authoritative. An event only says look again, and so does the check of all streams every 5 s; what is sent
is decided by `rules.handover` from what a look reads, for each stream anew:

    opened --(look: token, incarnation, numbers)--> held --(look)--> held, sent a Reinit once per generation, or ended

Subscribe first, then read: the process subscribes before it serves, a stream is entered into the held ones before the
statement that looks at it begins, and a hint that comes meanwhile makes a second look follow. While it is not known
which workspace a stream belongs to, every hint may be about it.

Crash points: a gateway that dies loses its streams; their agents come back, here or elsewhere, and their first look
sends what is due. A look that fails leaves the held streams as they are, to be looked at again; streams that no look
has admitted yet are refused. A lost event delays a handover until the next check. A Reinit that was sent into a dead
connection is sent again on the agent's next stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, assert_never

import structlog

from prebuilds.agent_gateway.admitting import token_refusal
from prebuilds.agent_gateway.queries.standings import StoredStanding, read_standings
from prebuilds.agent_gateway.rules.handover import (
    Answer,
    Finished,
    Hold,
    NeverAPrebuild,
    Reinitialise,
    Revoked,
    Stale,
    Standing,
    Unreachable,
    answer_to,
)
from prebuilds.agent_gateway.streams import HeldStream, HeldStreams, Reinit
from prebuilds.chassis.loops import Wakeups
from prebuilds.domain.ids import GatewayId, WorkspaceId
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database
from prebuilds.store.pool.connections import Connection

AT_ONCE: Final = 1000
"""Streams per statement: a check of 10,000 lets a hint in between, and blocks the event loop for some ms at most."""

_log = structlog.stdlib.get_logger(__name__)


class Connections(Protocol):
    """Where connections are written down; `presence` has it."""

    @property
    def gateway_id(self) -> GatewayId:
        """Id of the process, as Postgres knows it."""
        ...

    def attach(self, connection: Connection) -> None:
        """Have it attached soon."""
        ...

    def leave(self, connection: Connection) -> None:
        """Have it detached some seconds after its end."""
        ...


@dataclass(frozen=True, slots=True)
class Looks:
    """What some looks came to."""

    streams: int
    reinits: int
    ended: int

    def __bool__(self) -> bool:
        """Whether anything was told to anybody."""
        return self.reinits > 0 or self.ended > 0


class Attaching:
    """Holds the streams and tells each what is due to it."""

    def __init__(
        self,
        database: Database,
        keys: Mapping[str, bytes],
        streams: HeldStreams,
        connections: Connections,
        wakeups: Wakeups,
    ) -> None:
        """`wakeups` wake the loop that runs `run_once`; `keys` are those of agents' tokens, by id."""
        self._database = database
        self._keys = keys
        self._streams = streams
        self._connections = connections
        self._wakeups = wakeups
        self._hinted: dict[HeldStream, str] = {}
        """To be looked at first, with the trace context of the hint."""
        self._due: dict[HeldStream, str] = {}

    async def reinits(self, caller: Agent, *, incarnation: int, attempt: int) -> AsyncGenerator[Reinit]:
        """Hold a stream of the caller and give what it is to be sent.

        Ends when nothing will follow. Raises Refusal NOT_A_PREBUILD, STALE_INCARNATION, STREAM_REPLACED, or one of the
        class UNAUTHENTICATED.
        """
        stream = HeldStream(caller, incarnation=incarnation, attempt=attempt)
        self._streams.enter(stream)
        self._look_soon(stream, "")
        try:
            async for reinit in stream:
                yield reinit
        finally:
            stream.end()
            self._streams.leave(stream)
            self._hinted.pop(stream, None)
            self._due.pop(stream, None)
            if stream.connection is not None:
                self._connections.leave(stream.connection)

    def hint(self, workspace_id: WorkspaceId, traceparent: str) -> None:
        """Look again at the streams of this workspace, in the trace of whoever says so."""
        for stream in self._streams.of_workspace(workspace_id):
            self._look_soon(stream, traceparent)
        for stream in self._streams.unplaced:
            self._look_soon(stream, self._hinted.get(stream, ""))

    async def look_at_all(self) -> None:
        """Look again at every stream; returns at once."""
        self._due.update(dict.fromkeys(self._streams.everything, ""))
        self._wakeups.wake()

    async def run_once(self) -> Looks:
        """Look at all streams that are to be looked at, hinted ones first, until there are none."""
        streams = reinits = ended = 0
        while batch := self._take():
            is_applied = False
            try:
                stored = await read_standings(self._database, sorted({stream.agent_id for stream in batch}))
                for stream, traceparent in batch.items():
                    if not stream.is_over and stream in self._streams:
                        reinits += self._apply(stream, stored.get(stream.agent_id), traceparent)
                        ended += stream.is_over
                is_applied = True
            except Refusal as refusal:
                self._refuse_unplaced(batch, refusal)
                raise
            finally:
                if not is_applied:
                    self._put_back(batch)
            streams += len(batch)
        return Looks(streams, reinits, ended)

    def _look_soon(self, stream: HeldStream, traceparent: str) -> None:
        self._hinted[stream] = traceparent
        self._wakeups.wake()

    def _take(self) -> dict[HeldStream, str]:
        batch = _pop_first(self._hinted, AT_ONCE)
        for stream, traceparent in _pop_first(self._due, AT_ONCE - len(batch)).items():
            batch.setdefault(stream, traceparent)
        return batch

    def _put_back(self, batch: Mapping[HeldStream, str]) -> None:
        for stream, traceparent in batch.items():
            if stream in self._streams and not stream.is_over:
                self._hinted.setdefault(stream, traceparent)

    def _refuse_unplaced(self, batch: Collection[HeldStream], refusal: Refusal) -> None:
        for stream in batch:
            if stream.workspace_id is None:
                stream.end(Refusal(refusal.reason, refusal.message, retry_after=refusal.retry_after))

    def _apply(self, stream: HeldStream, stored: StoredStanding | None, traceparent: str) -> bool:
        """Give a stream what is due to it; whether that is a `Reinit`."""
        refusal = token_refusal(stream.agent.token, stored.credentials if stored else None, self._keys)
        if refusal is not None or stored is None:
            stream.end(refusal)
            return False
        answer = _answer(stream, stored)
        match answer:
            case Revoked():
                stream.end(Refusal(Reason.TOKEN_REVOKED, "this agent's token is revoked"))
            case Stale():
                stream.end(_stale())
            case NeverAPrebuild():
                stream.end(Refusal(Reason.NOT_A_PREBUILD, "this workspace never was a prebuild: nothing will follow"))
            case Finished():
                stream.end()
            case Unreachable():
                _log.error(
                    "handover is in a state that cannot be",
                    agent_id=stored.agent_id,
                    workspace_id=stored.workspace_id,
                    incarnation=stored.incarnation,
                    generation=stored.generation,
                    handover_generation=stored.handover_generation,
                    claim_generation=stored.claim_generation,
                )
                stream.end(Refusal(Reason.INTERNAL, "internal error"))
            case Hold():
                self._hold(stream, stored)
            case Reinitialise(generation):
                return self._hold(stream, stored) and _send(stream, stored, generation, traceparent)
            case _:
                assert_never(answer)
        return False

    def _hold(self, stream: HeldStream, stored: StoredStanding) -> bool:
        """Hold a stream unless a later one of its agent is held, here or elsewhere; whether it goes on."""
        replaced = self._streams.place(stream, stored.workspace_id)
        if replaced is not None:
            replaced.end(_replaced() if replaced.incarnation == stored.incarnation else _stale())
        if stored.attempt > stream.attempt:
            stream.end(_replaced())
        if stream.is_over:
            return False
        is_mine = stored.connection_id == stream.connection_id and stored.gateway_id == self._connections.gateway_id
        if stored.is_tracked and not is_mine:
            stream.connection = Connection(
                stream.connection_id,
                stream.agent_id,
                stored.workspace_id,
                stored.token_epoch,
                stream.incarnation,
                stream.attempt,
            )
            self._connections.attach(stream.connection)
        return True


def _answer(stream: HeldStream, stored: StoredStanding) -> Answer:
    return answer_to(
        Standing(
            is_revoked=stored.retired or stored.deleted,
            incarnation=stream.incarnation,
            stored_incarnation=stored.incarnation,
            generation=stored.generation,
            handover_generation=stored.handover_generation,
            claim_generation=stored.claim_generation,
            is_prebuild=stored.is_prebuild,
        )
    )


def _send(stream: HeldStream, stored: StoredStanding, generation: int, traceparent: str) -> bool:
    if generation <= stream.reinit_generation:
        return False
    stream.reinit_generation = generation
    stream.send(
        Reinit(
            stored.workspace_id,
            stored.claim_id,
            generation,
            stored.new_owner_id,
            stored.new_owner_name or "",
            traceparent,
        )
    )
    _log.info(
        "reinit sent",
        agent_id=stored.agent_id,
        workspace_id=stored.workspace_id,
        claim_id=stored.claim_id,
        generation=generation,
        incarnation=stored.incarnation,
    )
    return True


def _stale() -> Refusal:
    return Refusal(Reason.STALE_INCARNATION, "another incarnation of this agent has begun")


def _replaced() -> Refusal:
    return Refusal(Reason.STREAM_REPLACED, "a later stream of this agent is held")


def _pop_first(streams: dict[HeldStream, str], count: int) -> dict[HeldStream, str]:
    return {stream: streams.pop(stream) for stream in list(islice(streams, count))}
