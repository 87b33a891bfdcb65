"""What a workspace is doing, and whether what was begun has come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Reason


class WorkspaceStatus(StrEnum):
    """What a workspace is doing, by its latest build."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    FAILED = "failed"
    CANCELING = "canceling"
    CANCELED = "canceled"


STATUS: Final = {
    "deleted": WorkspaceStatus.DELETED,
    "dead": WorkspaceStatus.FAILED,
    "start:pending": WorkspaceStatus.PENDING,
    "start:running": WorkspaceStatus.STARTING,
    "start:succeeded": WorkspaceStatus.RUNNING,
    "stop:pending": WorkspaceStatus.STOPPING,
    "stop:running": WorkspaceStatus.STOPPING,
    "stop:succeeded": WorkspaceStatus.STOPPED,
    "delete:pending": WorkspaceStatus.DELETING,
    "delete:running": WorkspaceStatus.DELETING,
    "delete:succeeded": WorkspaceStatus.DELETED,
    **{f"{transition}:failed": WorkspaceStatus.FAILED for transition in ("start", "stop", "delete")},
    **{f"{transition}:canceling": WorkspaceStatus.CANCELING for transition in ("start", "stop", "delete")},
    **{f"{transition}:canceled": WorkspaceStatus.CANCELED for transition in ("start", "stop", "delete")},
}
"""From a workspace's standing to its status. Standing is what a query says in one word: `deleted`, `dead` (a prebuild
that was built but never lived), else transition and status of the latest build."""

_AT_REST: Final = frozenset({WorkspaceStatus.STOPPED, WorkspaceStatus.DELETED})
_UNDER_WAY: Final = frozenset(
    {
        WorkspaceStatus.PENDING,
        WorkspaceStatus.STARTING,
        WorkspaceStatus.STOPPING,
        WorkspaceStatus.DELETING,
        WorkspaceStatus.CANCELING,
    }
)


@dataclass(frozen=True, slots=True)
class AgentStanding:
    """What is looked at in an agent, retired ones aside."""

    name: str
    state: AgentState
    generation: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What was begun has come to its end; `reason` is None where it ended well."""

    reason: Reason | None = None
    agent: AgentStanding | None = None
    """The agent whose startup failed."""


def standings_of(status: WorkspaceStatus) -> tuple[str, ...]:
    """Name the standings that have this status."""
    return tuple(standing for standing, of in STATUS.items() if of is status)


def is_ready(status: WorkspaceStatus, claim_generation: int, agents: Sequence[AgentStanding]) -> bool:
    """Tell whether it runs with every agent ready in the owner's generation; one without agents never is."""
    return (
        status is WorkspaceStatus.RUNNING
        and bool(agents)
        and all(agent.state is AgentState.READY and agent.generation == claim_generation for agent in agents)
    )


def how_it_ended(status: WorkspaceStatus, claim_generation: int, agents: Sequence[AgentStanding]) -> Ended | None:
    """Tell how what was begun ended; None: it has not yet.

    1. A build waits, runs or is being cancelled: not yet.
    2. The build failed or was cancelled: it ended with that.
    3. Stopped or deleted: it ended well.
    4. Every agent is ready in the owner's generation: it ended well.
    5. An agent's startup failed or ran out of time in the owner's generation: it ended with that.
    6. Otherwise agents have yet to come up for the owner: not yet.
    """
    if status in _UNDER_WAY:
        return None
    if status is WorkspaceStatus.FAILED:
        return Ended(Reason.BUILD_FAILED)
    if status is WorkspaceStatus.CANCELED:
        return Ended(Reason.BUILD_CANCELED)
    if status in _AT_REST or is_ready(status, claim_generation, agents):
        return Ended()
    failed = (AgentState.START_ERROR, AgentState.START_TIMEOUT)
    for agent in agents:
        if agent.state in failed and agent.generation == claim_generation:
            return Ended(Reason.STARTUP_FAILED, agent)
    return None
