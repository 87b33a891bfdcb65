from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.sdk.agent import AgentClient, Started, StartFailed, StartTimedOut, open_agent_client, run_agent
from tests.support.scripted_gateway import (
    TOKEN,
    ManualTime,
    RecordedWork,
    ScriptedGateway,
    open_gateway,
    serve_gateway,
)
from tests.support.waiting import eventually

STALE = Refusal(Reason.STALE_INCARNATION, "another process has begun")
NEVER_A_PREBUILD = Refusal(Reason.NOT_A_PREBUILD, "never was one")
REVOKED = Refusal(Reason.TOKEN_REVOKED, "token is revoked")
AWAY = Refusal(Reason.DEPENDENCY_UNAVAILABLE, "no database")
DRAINING = Refusal(Reason.DRAINING, "shutting down")
CONFLICT = Refusal(Reason.TRANSACTION_CONFLICT, "try again")


@dataclass
class Running:
    gateway: ScriptedGateway
    work: RecordedWork = field(default_factory=RecordedWork)
    time: ManualTime = field(default_factory=ManualTime)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def start(self, client: AgentClient) -> None:
        self.task = asyncio.ensure_future(
            run_agent(
                client,
                self.work,
                stopping=self.stopping,
                on_change=self.work.statuses.append,
                process="process-of-this-test",
                pacing=self.time.pacing(),
            )
        )

    async def stop(self) -> None:
        assert self.task is not None
        self.stopping.set()
        await self.task


@asynccontextmanager
async def running_agent(work: RecordedWork | None = None) -> AsyncGenerator[Running]:
    """An agent that has begun at a gateway; refusals that shall come first are given by `gateway.refuse` before."""
    async with open_gateway() as (gateway, client):
        running = Running(gateway, work or RecordedWork())
        running.start(client)
        try:
            yield running
        finally:
            await running.stop()


async def test_an_agent_loads_its_manifest_reports_to_ready_and_holds_a_stream() -> None:
    async with running_agent() as agent:
        stream = await agent.gateway.stream(1)
        await agent.gateway.reported(1, AgentState.READY)
        assert agent.gateway.begun == [("process-of-this-test", 1)]
        assert agent.gateway.states(1) == ["ready"]
        assert (stream.incarnation, stream.attempt, stream.is_closed) == (1, 1, False)
        assert stream.token == f"Bearer {TOKEN}"
        assert agent.work.log == ["start prebuilds"]


async def test_a_reinit_stops_the_work_and_starts_it_for_the_new_owner_in_the_same_process() -> None:
    async with running_agent() as agent:
        first = await agent.gateway.stream(1)
        await agent.gateway.reported(1, AgentState.READY)
        agent.gateway.hand_over()
        first.send(1)
        await agent.gateway.reported(2, AgentState.READY)
        second = await agent.gateway.stream(2)
        second.end()
        await eventually(lambda: not agent.work.statuses[-1].is_asking)
        assert agent.gateway.begun == [("process-of-this-test", 1), ("process-of-this-test", 2)]
        assert agent.gateway.states(2) == ["ready"]
        assert (second.incarnation, second.attempt) == (2, 1)
        assert agent.work.log == ["start prebuilds", "stop", "start alice"]
        assert first.is_closed
        assert agent.time.pauses == []


async def test_a_reinit_that_comes_twice_or_is_of_the_own_generation_is_ignored() -> None:
    async with running_agent() as agent:
        first = await agent.gateway.stream(1)
        agent.gateway.hand_over()
        first.send(1)
        second = await agent.gateway.stream(2)
        second.send(1)
        second.send(0)
        second.end()
        await eventually(lambda: not agent.work.statuses[-1].is_asking)
        assert agent.work.log == ["start prebuilds", "stop", "start alice"]
        assert len(agent.gateway.begun) == 2


async def test_an_error_that_no_server_would_take_is_reported_in_other_characters() -> None:
    work = RecordedWork()
    work.result = StartFailed("a\0b")
    async with running_agent(work) as agent:
        report = await agent.gateway.reported(1, AgentState.START_ERROR)
        assert report.error == "a\N{REPLACEMENT CHARACTER}b"


async def test_a_startup_that_takes_time_is_reported_as_starting_first() -> None:
    work = RecordedWork()
    work.may_end.clear()
    async with running_agent(work) as agent:
        await agent.gateway.reported(1, AgentState.STARTING)
        work.may_end.set()
        await agent.gateway.reported(1, AgentState.READY)
        assert agent.gateway.states(1) == ["starting", "ready"]


async def test_a_handover_does_not_wait_for_a_startup_that_hangs() -> None:
    work = RecordedWork()
    work.may_end.clear()
    async with running_agent(work) as agent:
        await agent.gateway.reported(1, AgentState.STARTING)
        agent.gateway.hand_over()
        (await agent.gateway.stream(1)).send(1)
        await agent.gateway.reported(2, AgentState.STARTING)
        work.may_end.set()
        await agent.gateway.reported(2, AgentState.READY)
        assert agent.gateway.states(1) == ["starting"]
        assert work.log == ["start prebuilds", "stop", "start alice"]


async def test_a_stream_that_is_cut_is_opened_again_with_a_higher_attempt_and_the_work_goes_on() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        for number in range(1, 9):
            (await agent.gateway.stream(number)).end(DRAINING)
            await agent.time.end_pause()
        last = await agent.gateway.stream(9)
        assert (last.incarnation, last.attempt) == (1, 9)
        assert agent.time.pauses == pytest.approx([0.15, 0.25, 0.45, 0.85, 1.65, 3.25, 5.05, 5.05])
        assert agent.work.log == ["start prebuilds"]


async def test_a_stream_that_was_open_for_half_a_minute_forgives_the_failures_before() -> None:
    async with running_agent() as agent:
        for number in range(1, 4):
            (await agent.gateway.stream(number)).end(DRAINING)
            await agent.time.end_pause()
        steady = await agent.gateway.stream(4)
        agent.time.now += 29.9
        steady.end(DRAINING)
        assert await agent.time.end_pause() == pytest.approx(0.85)
        steady = await agent.gateway.stream(5)
        agent.time.now += 30
        steady.end(DRAINING)
        assert await agent.time.end_pause() == pytest.approx(0.15)


async def test_an_agent_outlives_its_gateway_finds_it_again_and_is_handed_over() -> None:
    async with AsyncExitStack() as stack:
        before = await stack.enter_async_context(serve_gateway(ScriptedGateway()))
        client = await stack.enter_async_context(open_agent_client(before.address, token=TOKEN))
        agent = Running(before)
        agent.start(client)
        await before.reported(1, AgentState.READY)
        await before.stream(1)
        await before.stop()
        for _ in range(3):
            await agent.time.end_pause()
        after = ScriptedGateway()
        after.hand_over()
        await stack.enter_async_context(serve_gateway(after, before.port))
        pauses = asyncio.ensure_future(_end_all_pauses(agent.time))
        assert (await after.stream(1)).attempt > 3
        after.streams[0].send(1)
        await after.reported(1, AgentState.READY)
        pauses.cancel()
        await agent.stop()
    assert after.begun == [("process-of-this-test", 2)]
    assert agent.work.log == ["start prebuilds", "stop", "start alice", "stop"]


async def _end_all_pauses(time: ManualTime) -> None:
    """For as long as the channel itself waits before it connects again, tries fail at once."""
    while True:
        await time.end_pause()


async def test_after_ok_an_agent_asks_no_more_and_keeps_running() -> None:
    async with running_agent() as agent:
        (await agent.gateway.stream(1)).end()
        await eventually(lambda: not agent.work.statuses[-1].is_asking)
        await agent.gateway.reported(1, AgentState.READY)
        assert agent.time.pauses == []
        assert len(agent.gateway.streams) == 1
        assert agent.work.log == ["start prebuilds"]


async def test_an_agent_of_a_workspace_that_never_was_a_prebuild_asks_once() -> None:
    async with running_agent() as agent:
        (await agent.gateway.stream(1)).end(NEVER_A_PREBUILD)
        await eventually(lambda: not agent.work.statuses[-1].is_asking)
        await agent.gateway.reported(1, AgentState.READY)
        assert agent.time.pauses == []
        assert len(agent.gateway.streams) == 1


@pytest.mark.parametrize("method", ["ReportState", "StreamReinit"])
async def test_an_agent_told_that_it_is_stale_asks_nothing_and_begins_again_without_restarting_its_work(
    method: str,
) -> None:
    async with open_gateway() as (gateway, client):
        gateway.refuse(method, STALE)
        agent = Running(gateway)
        agent.start(client)
        await eventually(lambda: agent.work.statuses and agent.work.statuses[-1].is_superseded)
        streams, reports = len(gateway.streams), len(gateway.reports)
        assert all(stream.is_closed for stream in gateway.streams)
        assert (len(gateway.streams), len(gateway.reports)) == (streams, reports)
        assert await agent.time.end_pause() == 300
        await gateway.reported(2, AgentState.READY)
        assert gateway.begun == [("process-of-this-test", 1), ("process-of-this-test", 2)]
        assert gateway.states(2) == ["ready"]
        assert not agent.work.statuses[-1].is_superseded
        assert agent.work.log == ["start prebuilds"]
        await agent.stop()


async def test_a_stale_agent_that_begins_again_at_a_higher_generation_restarts_its_work() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        agent.gateway.hand_over()
        (await agent.gateway.stream(1)).end(STALE)
        assert await agent.time.end_pause() == 300
        await agent.gateway.reported(2, AgentState.READY)
        assert agent.work.log == ["start prebuilds", "stop", "start alice"]


async def test_a_stale_agent_says_nothing_when_it_ends() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        (await agent.gateway.stream(1)).end(STALE)
        await eventually(lambda: agent.time.pauses == [300])
    assert agent.gateway.states(1) == ["ready"]


async def test_a_manifest_refused_as_stale_is_asked_for_with_the_next_entry_after_five_minutes() -> None:
    async with open_gateway() as (gateway, client):
        gateway.refuse("GetManifest", STALE)
        agent = Running(gateway)
        agent.start(client)
        assert await agent.time.end_pause() == 300
        await gateway.reported(1, AgentState.READY)
        assert gateway.begun == [("process-of-this-test", 1), ("process-of-this-test", 2)]
        await agent.stop()


async def test_an_agent_without_a_valid_token_keeps_trying_up_to_five_minutes_apart() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        agent.gateway.refuse("StreamReinit", *[REVOKED] * 12)
        (await agent.gateway.stream(1)).end(REVOKED)
        for _ in range(13):
            await agent.time.end_pause()
        held = await agent.gateway.stream(14)
        assert not held.is_closed
        assert agent.time.pauses == pytest.approx([0.9 * min(300, 2**doubled) for doubled in range(13)])
        assert agent.work.log == ["start prebuilds"]


async def test_a_manifest_is_asked_for_with_the_same_numbers_until_it_is_answered() -> None:
    async with open_gateway() as (gateway, client):
        gateway.refuse("GetManifest", AWAY, REVOKED, CONFLICT)
        agent = Running(gateway)
        agent.start(client)
        for _ in range(3):
            await agent.time.end_pause()
        await gateway.reported(1, AgentState.READY)
        assert gateway.begun == [("process-of-this-test", 1)] * 4
        await agent.stop()


async def test_a_report_is_repeated_until_it_is_answered() -> None:
    async with open_gateway() as (gateway, client):
        gateway.refuse("ReportState", AWAY, CONFLICT, AWAY)
        agent = Running(gateway)
        agent.start(client)
        for _ in range(3):
            await agent.time.end_pause()
        await gateway.reported(1, AgentState.READY)
        assert agent.time.pauses == pytest.approx([0.15, 0.25, 0.45])
        await agent.stop()


@pytest.mark.parametrize(
    "result, state",
    [
        (StartFailed("no such file"), AgentState.START_ERROR),
        (StartTimedOut("killed"), AgentState.START_TIMEOUT),
    ],
    ids=["failed", "timed out"],
)
async def test_a_startup_that_goes_wrong_is_reported_with_its_error(
    result: StartFailed | StartTimedOut, state: AgentState
) -> None:
    work = RecordedWork()
    work.result = result
    async with running_agent(work) as agent:
        report = await agent.gateway.reported(1, state)
        assert report.error == result.error


async def test_of_a_long_error_the_end_is_reported() -> None:
    work = RecordedWork()
    work.result = StartFailed("ä" * 5000 + "!")
    async with running_agent(work) as agent:
        report = await agent.gateway.reported(1, AgentState.START_ERROR)
        assert report.error == "ä" * 2047 + "!"


async def test_work_that_raises_at_its_start_counts_as_failed_and_the_agent_goes_on() -> None:
    class Broken(RecordedWork):
        async def start(self, manifest: object) -> Started:
            raise RuntimeError("broken")

    async with running_agent(Broken()) as agent:
        report = await agent.gateway.reported(1, AgentState.START_ERROR)
        assert report.error == "broken"
        assert not (await agent.gateway.stream(1)).is_closed


async def test_work_that_cannot_be_stopped_ends_the_agent_rather_than_serving_two_owners() -> None:
    class Stuck(RecordedWork):
        async def stop(self) -> None:
            raise RuntimeError("stuck")

    async with open_gateway() as (gateway, client):
        gateway.manifest.generation = 0
        task = asyncio.ensure_future(run_agent(client, Stuck(), pacing=ManualTime().pacing()))
        (await gateway.stream(1)).send(1)
        with pytest.raises(RuntimeError, match="stuck"):
            await task
        assert len(gateway.begun) == 1


async def test_a_manifest_older_than_its_reinit_is_asked_for_again_and_nothing_runs_meanwhile() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        (await agent.gateway.stream(1)).send(1)
        await eventually(lambda: len(agent.time.pauses) == 1)
        assert agent.work.log == ["start prebuilds", "stop"]
        agent.gateway.hand_over()
        await agent.time.end_pause()
        await agent.gateway.reported(3, AgentState.READY)
        assert agent.work.log == ["start prebuilds", "stop", "start alice"]


async def test_an_agent_that_is_stopped_ends_its_work_and_says_so() -> None:
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        stream = await agent.gateway.stream(1)
    assert agent.gateway.states(1) == ["ready", "shutting_down", "off"]
    assert agent.work.log == ["start prebuilds", "stop"]
    assert stream.is_closed


async def test_an_agent_that_is_cancelled_ends_its_work_and_says_so() -> None:
    async with open_gateway() as (gateway, client):
        agent = Running(gateway)
        agent.start(client)
        await gateway.reported(1, AgentState.READY)
        assert agent.task is not None
        agent.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent.task
        assert gateway.states(1) == ["ready", "shutting_down", "off"]


async def test_a_token_that_cannot_be_read_is_waited_for() -> None:
    tokens: list[str] = []

    def read() -> str:
        if not tokens:
            raise FileNotFoundError("token")
        return tokens[0]

    async with serve_gateway(ScriptedGateway()) as gateway, open_agent_client(gateway.address, token=read) as client:
        agent = Running(gateway)
        agent.start(client)
        await eventually(lambda: agent.time.pauses)
        tokens.append(TOKEN)
        await agent.time.end_pause()
        assert (await gateway.stream(1)).token == f"Bearer {TOKEN}"
        await agent.stop()


async def test_the_trace_of_a_claim_goes_on_until_its_acknowledgement() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running_agent() as agent:
        await agent.gateway.reported(1, AgentState.READY)
        agent.gateway.hand_over()
        (await agent.gateway.stream(1)).send(1, traceparent=trace)
        await agent.gateway.reported(2, AgentState.READY)
        seen = agent.gateway.traceparents
        assert [value is not None and trace[3:35] in value for value in seen["GetManifest"]] == [False, True]
        assert [value is not None and trace[3:35] in value for value in seen["ReportState"]] == [
            False,
            True,
        ]
