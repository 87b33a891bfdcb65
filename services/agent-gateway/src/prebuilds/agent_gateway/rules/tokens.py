"""Whether an agent's token counts (design section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.agents import AgentToken
from prebuilds.domain.ids import AgentId
from prebuilds.domain.refusals import Reason

EARLIER_EPOCHS: Final = 16
"""How many epochs back a token is told that it is revoked rather than that it never was one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Postgres has of an agent's token."""

    agent_id: AgentId
    key_id: str | None
    """Null until a job of this epoch is first acquired: no token of it exists yet."""
    epoch: int
    retired: bool
    deleted: bool
    """The workspace is."""


def objection_to(token: str, stored: Credentials, keys: Mapping[str, bytes]) -> Reason | None:
    """Why does this token not count? None where it does.

    1. It is none of this agent, whatever the epoch: `CREDENTIALS_INVALID`, which tells a stranger nothing.
    2. It is of an earlier epoch, or the agent is retired, or the workspace deleted: `TOKEN_REVOKED`.
    """
    parsed = AgentToken.parse(token)
    if parsed is None or parsed.agent_id != stored.agent_id:
        return Reason.CREDENTIALS_INVALID
    if stored.key_id is not None and parsed.verify(keys, stored.key_id, stored.epoch):
        return Reason.TOKEN_REVOKED if stored.retired or stored.deleted else None
    earlier = range(stored.epoch - 1, max(0, stored.epoch - 1 - EARLIER_EPOCHS), -1)
    if any(parsed.verify(keys, parsed.key_id, epoch) for epoch in earlier):
        return Reason.TOKEN_REVOKED
    return Reason.CREDENTIALS_INVALID
