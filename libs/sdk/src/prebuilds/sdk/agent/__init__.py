"""Agents of one's own: the protocol of behaviour section 8 around work that you write.

async with open_agent_client(url, token=read_token) as gateway:
await run_agent(gateway, MyWork(), stopping=stopping)
"""

from __future__ import annotations

from prebuilds.sdk.agent.client import AgentClient, Gateway, open_agent_client
from prebuilds.sdk.agent.run import Pacing, run_agent
from prebuilds.sdk.agent.work import (
    AgentStatus,
    Started,
    StartFailed,
    StartTimedOut,
    StartupResult,
    Work,
)

__all__ = [
    "AgentClient",
    "AgentStatus",
    "Gateway",
    "Pacing",
    "StartFailed",
    "StartTimedOut",
    "Started",
    "StartupResult",
    "Work",
    "open_agent_client",
    "run_agent",
]
