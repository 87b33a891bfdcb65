"""What an agent runs, and how it looks from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from prebuilds.domain.agents import AgentState
from prebuilds.v1.agent_pb2 import Manifest


@dataclass(frozen=True, slots=True)
class Started:
    """The startup ended well."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The startup failed; `error` is shown to people, of more than 4 KiB the end."""

    error: str


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """The startup ran out of time; `error` is shown to people, of more than 4 KiB the end."""

    error: str


StartupResult: TypeAlias = Started | StartFailed | StartTimedOut


class Work(Protocol):
    """The work of a workspace for one owner at a time: `start` and `stop` are never called at once."""

    async def start(self, manifest: Manifest) -> StartupResult:
        """Begin to run for the manifest's owner and answer when the startup has ended.

        Called once for each generation, within which the work goes on whatever becomes of the gateway. It is cancelled
        when it is not needed any more; `stop` follows. What it raises counts as StartFailed.
        """
        ...

    async def stop(self) -> None:
        """End all that `start` left running, within a bounded time. Nothing of it may run any more when this returns.

        Also called after a `start` that was cancelled, and when nothing runs. What it raises ends the agent, for it
        must not run for a new owner beside the work of the one before.
        """
        ...


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What an agent process is at one moment."""

    process: str
    """Random id of the process."""
    state: AgentState
    """How far the work is; what is reported."""
    error: str = ""
    """Why the startup failed or ran out of time."""
    manifest: Manifest | None = None
    """What it runs by. None: it has not begun yet."""
    incarnation: int = 0
    """Number of its present beginning; above the manifest's when it began again at the same generation."""
    is_superseded: bool = False
    """Whether another process has begun with the same token: this one keeps running and asks nothing for a while."""
    is_asking: bool = True
    """Whether a handover may still come; False once the gateway said that none will."""
