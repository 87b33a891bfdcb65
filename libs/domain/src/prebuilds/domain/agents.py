"""Agents: the states of one incarnation, and the token that stands for an agent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from prebuilds.domain.ids import AgentId


class AgentState(StrEnum):
    """How far one incarnation is; it only moves forward (behaviour section 8)."""

    CREATED = "created"
    STARTING = "starting"
    READY = "ready"
    START_ERROR = "start_error"
    START_TIMEOUT = "start_timeout"
    SHUTTING_DOWN = "shutting_down"
    OFF = "off"

    @property
    def ended_startup(self) -> bool:
        """True once the startup is over, well or badly: the condition of an acknowledgement."""
        return self in _ENDED_STARTUP

    def may_become(self, later: AgentState) -> bool:
        """Whether a report of `later` moves an incarnation that is in this state; the same state again does not."""
        return _RANK[later] > _RANK[self]


_RANK: Final = {
    AgentState.CREATED: 0,
    AgentState.STARTING: 1,
    AgentState.READY: 2,
    AgentState.START_ERROR: 2,
    AgentState.START_TIMEOUT: 2,
    AgentState.SHUTTING_DOWN: 3,
    AgentState.OFF: 4,
}
_ENDED_STARTUP = frozenset({AgentState.READY, AgentState.START_ERROR, AgentState.START_TIMEOUT})

_PREFIX: Final = "pba"
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class AgentToken:
    """A token's claim to be an agent; `verify` tells whether the claim is true."""

    key_id: str
    agent_id: AgentId
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> AgentToken | None:
        """Read `pba_<key id>_<agent id>_<base64url>`; None where the text has another form."""
        parts = text.split("_", _PARTS - 1)
        if len(parts) != _PARTS or parts[0] != _PREFIX or not parts[1]:
            return None
        padding = "=" * (-len(parts[3]) % 4)
        try:
            return cls(parts[1], AgentId(UUID(parts[2])), base64.urlsafe_b64decode(parts[3] + padding))
        except (ValueError, binascii.Error):
            return None

    def verify(self, keys: Mapping[str, bytes], key_id: str, epoch: int) -> bool:
        """Whether this token is the one of `epoch` under the key stored for the agent; takes constant time."""
        key = keys.get(key_id)
        if key is None or self.key_id != key_id:
            return False
        return hmac.compare_digest(self.signature, _signature(key, self.agent_id, epoch))


def mint_agent_token(keys: Mapping[str, bytes], key_id: str, agent_id: AgentId, epoch: int) -> str:
    """Make the token of an agent's epoch; it can be made again at any time, so nothing stores it.

    Raises KeyError when `key_id` is not among the keys.
    """
    encoded = base64.urlsafe_b64encode(_signature(keys[key_id], agent_id, epoch)).rstrip(b"=").decode()
    return f"{_PREFIX}_{key_id}_{agent_id}_{encoded}"


def _signature(key: bytes, agent_id: AgentId, epoch: int) -> bytes:
    return hmac.new(key, agent_id.bytes + epoch.to_bytes(8, "big"), hashlib.sha256).digest()
