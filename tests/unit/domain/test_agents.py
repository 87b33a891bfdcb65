from __future__ import annotations

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilds.domain.agents import AgentState, AgentToken, mint_agent_token
from prebuilds.domain.ids import AgentId

KEYS = {"k1": b"first key", "k2": b"second key"}
AGENT = AgentId(UUID("0d5f4b8e-6d1d-4b67-9a8c-1f6a5f3f6f10"))


def _token(text: str) -> AgentToken:
    token = AgentToken.parse(text)
    assert token is not None
    return token


@given(agent=st.uuids(), epoch=st.integers(0, 2**40))
def test_a_minted_token_verifies_for_its_agent_key_and_epoch(agent: UUID, epoch: int) -> None:
    token = _token(mint_agent_token(KEYS, "k1", AgentId(agent), epoch))

    assert token.agent_id == agent
    assert token.verify(KEYS, "k1", epoch)


def test_a_token_can_be_made_again_without_being_stored() -> None:
    assert mint_agent_token(KEYS, "k1", AGENT, 3) == mint_agent_token(KEYS, "k1", AGENT, 3)


@pytest.mark.parametrize(
    "keys, key_id, epoch",
    [
        (KEYS, "k1", 4),
        (KEYS, "k2", 3),
        ({"k1": b"another key"}, "k1", 3),
        ({}, "k1", 3),
    ],
    ids=["another epoch", "another key id is stored", "another key", "a key that is gone"],
)
def test_a_token_verifies_for_nothing_else(keys: dict[str, bytes], key_id: str, epoch: int) -> None:
    token = _token(mint_agent_token(KEYS, "k1", AGENT, 3))

    assert not token.verify(keys, key_id, epoch)


def test_a_token_of_one_agent_is_not_that_of_another() -> None:
    other = AgentId(UUID(int=1))
    forged = mint_agent_token(KEYS, "k1", AGENT, 3).replace(str(AGENT), str(other))

    assert not _token(forged).verify(KEYS, "k1", 3)


@pytest.mark.parametrize(
    "text",
    ["", "pba", "pba_k1", f"pba_k1_{AGENT}", f"pbd_k1_{AGENT}_AAAA", "pba_k1_nobody_AAAA", f"pba__{AGENT}_AAAA"],
)
def test_what_has_not_the_form_of_a_token_is_none(text: str) -> None:
    assert AgentToken.parse(text) is None


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    AgentToken.parse(text)
    AgentToken.parse(f"pba_k1_{AGENT}_{text}")


def test_a_state_only_moves_forward() -> None:
    for earlier, later in product(AgentState, repeat=2):
        assert not (earlier.may_become(later) and later.may_become(earlier))


def test_the_ends_of_a_startup_do_not_replace_each_other() -> None:
    ends = [state for state in AgentState if state.ended_startup]

    assert ends == [AgentState.READY, AgentState.START_ERROR, AgentState.START_TIMEOUT]
    assert not any(one.may_become(other) for one, other in product(ends, repeat=2))
