"""Beginnings of agents: a new incarnation and what it runs by (behaviour section 8).

Postgres is authoritative: the stored pair of process and entry says which beginning is the present one. A crash or a
lost answer after the commit: the same pair asks again and gets the same incarnation with the manifest of the same
generation, whatever was handed over meanwhile; what is newer reaches it as a `Reinit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from prebuilds.agent_gateway.admitting import lock_own_workspace
from prebuilds.agent_gateway.metrics import GatewayMetrics
from prebuilds.agent_gateway.queries.agents import begin_incarnation
from prebuilds.agent_gateway.queries.manifests import StoredManifest, read_manifest
from prebuilds.agent_gateway.rules.incarnations import Beginning, Outdated, Repeated, Rises, incarnation_of
from prebuilds.domain.ids import AgentId
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database
from prebuilds.store.pool.connections import refresh_connections
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.store.transactions import Transaction

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one incarnation of an agent runs by."""

    agent_id: AgentId
    agent_name: str
    incarnation: int
    generation: int
    content: StoredManifest


class Manifests:
    """Begins incarnations."""

    def __init__(self, database: Database, keys: Mapping[str, bytes], metrics: GatewayMetrics) -> None:
        """`keys` are those of agents' tokens, by id."""
        self._database = database
        self._keys = keys
        self._metrics = metrics

    async def begin(self, caller: Agent, beginning: Beginning) -> Manifest:
        """Begin the caller's incarnation, or repeat the answer to this beginning.

        Raises Refusal STALE_INCARNATION where a higher entry of the same process has begun, or one of the class
        UNAUTHENTICATED.
        """

        async def work(tx: Transaction) -> tuple[Manifest, bool]:
            return await self._begin(tx, caller, beginning)

        manifest, alternates = await self._database.run("get manifest", work)
        if alternates:
            self._metrics.incarnation_alternated()
            _log.warning("incarnation alternated", agent_id=caller.agent_id, incarnation=manifest.incarnation)
        _log.info(
            "manifest given",
            agent_id=caller.agent_id,
            workspace_id=manifest.content.workspace_id,
            incarnation=manifest.incarnation,
            generation=manifest.generation,
        )
        return manifest

    async def _begin(self, tx: Transaction, caller: Agent, beginning: Beginning) -> tuple[Manifest, bool]:
        own = await lock_own_workspace(tx, caller, self._keys)
        agent, workspace = own.agent, own.workspace
        match incarnation_of(beginning, stored=agent.beginning, incarnation=agent.incarnation):
            case Repeated():
                incarnation, generation, alternates = agent.incarnation, agent.generation, False
            case Outdated():
                raise Refusal(Reason.STALE_INCARNATION, "a later beginning of this process has been answered")
            case Rises(incarnation, alternates):
                generation = workspace.handover_generation
                await begin_incarnation(tx, agent.agent_id, beginning, incarnation=incarnation, generation=generation)
                if own.is_pooled:
                    await refresh_connections(tx, [workspace.workspace_id])
                    await refresh_readiness(tx, [workspace.workspace_id])
        content = await read_manifest(tx, workspace.workspace_id, generation)
        if content is None:
            raise LookupError(f"workspace {workspace.workspace_id} has no start build up to generation {generation}")
        return Manifest(agent.agent_id, agent.name, incarnation, generation, content), alternates
