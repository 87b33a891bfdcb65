from __future__ import annotations

from uuid import uuid4

import pytest

from prebuilds.agent_gateway.streams import HeldStream, HeldStreams, Reinit
from prebuilds.domain.ids import AgentId, WorkspaceId
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal

WORKSPACE = WorkspaceId(uuid4())


def reinit(generation: int) -> Reinit:
    return Reinit(WORKSPACE, None, generation, None, "", "")


def stream(agent: AgentId, incarnation: int = 1, attempt: int = 1) -> HeldStream:
    return HeldStream(Agent(agent, "pba_"), incarnation=incarnation, attempt=attempt)


async def test_what_was_sent_comes_before_the_end() -> None:
    one = stream(AgentId(uuid4()))
    one.send(reinit(1))
    one.end(Refusal(Reason.DRAINING, ""))

    assert await anext(one) == reinit(1)
    with pytest.raises(Refusal):
        await anext(one)


async def test_the_first_end_counts() -> None:
    one = stream(AgentId(uuid4()))
    one.end()
    one.end(Refusal(Reason.DRAINING, ""))

    assert [each async for each in one] == []


async def test_a_later_stream_of_an_agent_replaces_an_earlier_one_whichever_comes_first() -> None:
    agent = AgentId(uuid4())
    earlier, later, next_incarnation = stream(agent, 1, 1), stream(agent, 1, 2), stream(agent, 2, 1)
    streams = HeldStreams()
    for each in (earlier, later, next_incarnation):
        streams.enter(each)

    assert streams.place(later, WORKSPACE) is None
    assert streams.place(earlier, WORKSPACE) is earlier
    assert streams.place(next_incarnation, WORKSPACE) is later
    assert streams.place(next_incarnation, WORKSPACE) is None


async def test_a_stream_that_left_is_forgotten() -> None:
    streams, one = HeldStreams(), stream(AgentId(uuid4()))
    streams.enter(one)
    assert one in streams.unplaced
    streams.place(one, WORKSPACE)
    assert list(streams.of_workspace(WORKSPACE)) == [one]

    streams.leave(one)

    assert not streams.of_workspace(WORKSPACE)
    assert len(streams) == 0
    assert one not in streams
