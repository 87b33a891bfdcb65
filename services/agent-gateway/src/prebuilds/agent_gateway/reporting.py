"""State reports of agents: readiness of prebuilds, and the acknowledgement of handovers (behaviour section 8).

One transaction locks the pool row, if there is one, then the workspace, and changes its agent; the others are counted
in later statements, so that of two agents that finish together the second sees the first. A crash before the commit
changes nothing, and the agent repeats its report; one after it leaves a report whose repetition finds the state
stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from prebuilds.agent_gateway.admitting import OwnWorkspace, lock_own_workspace
from prebuilds.agent_gateway.metrics import GatewayMetrics
from prebuilds.agent_gateway.queries.agents import store_state
from prebuilds.domain.agents import AgentState
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database
from prebuilds.store.handover.moves import Acknowledgement, acknowledge
from prebuilds.store.pool.deaths import fail_dead_prebuilds
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.store.transactions import Transaction

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """How far an incarnation is, as its agent says."""

    incarnation: int
    state: AgentState
    error: str
    """What went wrong; empty unless the startup failed or ran out of time."""


@dataclass(frozen=True, slots=True)
class _Stored:
    own: OwnWorkspace
    state: AgentState
    is_news: bool
    died: bool = False
    acknowledgement: Acknowledgement | None = None


class Reporting:
    """Stores the states that agents report, and what follows from them."""

    def __init__(self, database: Database, keys: Mapping[str, bytes], metrics: GatewayMetrics) -> None:
        """`keys` are those of agents' tokens, by id."""
        self._database = database
        self._keys = keys
        self._metrics = metrics

    async def report(self, caller: Agent, report: Report) -> AgentState:
        """Store the state, if it is later than the stored one, and answer which is stored now.

        Raises Refusal STALE_INCARNATION where another incarnation has begun, or one of the class UNAUTHENTICATED.
        """

        async def work(tx: Transaction) -> _Stored:
            return await self._store(tx, caller, report)

        stored = await self._database.run("report state", work)
        self._tell(stored, report)
        return stored.state

    async def _store(self, tx: Transaction, caller: Agent, report: Report) -> _Stored:
        own = await lock_own_workspace(tx, caller, self._keys)
        agent, workspace = own.agent, own.workspace
        if report.incarnation != agent.incarnation:
            raise Refusal(Reason.STALE_INCARNATION, "another incarnation of this agent has begun")
        if not agent.state.may_become(report.state):
            return _Stored(own, agent.state, is_news=False)
        await store_state(tx, agent.agent_id, report.state, report.error)
        if own.is_pooled:
            died = await fail_dead_prebuilds(tx, [workspace.workspace_id])
            await refresh_readiness(tx, [workspace.workspace_id])
            return _Stored(own, report.state, is_news=True, died=bool(died))
        return _Stored(own, report.state, is_news=True, acknowledgement=await acknowledge(tx, workspace))

    def _tell(self, stored: _Stored, report: Report) -> None:
        agent, acknowledgement = stored.own.agent, stored.acknowledgement
        ids = {"agent_id": agent.agent_id, "workspace_id": agent.workspace_id, "incarnation": agent.incarnation}
        if stored.is_news:
            _log.info("state stored", **ids, generation=agent.generation, state=stored.state, error=report.error)
        if stored.died:
            _log.warning("prebuild failed", **ids, reason="startup failed", failure_class="template")
        if acknowledgement is not None:
            self._metrics.handover_acknowledged(acknowledgement)
            _log.info(
                "handover acknowledged",
                **ids,
                claim_id=acknowledgement.claim_id,
                outcome=acknowledgement.outcome,
                seconds=round(acknowledgement.took.total_seconds(), 4),
            )
