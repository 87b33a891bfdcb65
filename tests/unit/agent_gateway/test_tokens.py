from __future__ import annotations

from uuid import uuid4

from prebuilds.agent_gateway.rules.tokens import EARLIER_EPOCHS, Credentials, objection_to
from prebuilds.domain.agents import mint_agent_token
from prebuilds.domain.ids import AgentId
from prebuilds.domain.refusals import Reason

AGENT = AgentId(uuid4())
KEYS = {"k1": b"one", "k2": b"two"}


def token(epoch: int, key_id: str = "k1", agent: AgentId = AGENT) -> str:
    return mint_agent_token(KEYS, key_id, agent, epoch)


def stored(epoch: int, key_id: str | None = "k1", *, retired: bool = False, deleted: bool = False) -> Credentials:
    return Credentials(AGENT, key_id, epoch, retired, deleted)


def test_the_token_of_the_epoch_counts() -> None:
    assert objection_to(token(3), stored(3), KEYS) is None


def test_a_token_of_an_earlier_epoch_is_revoked() -> None:
    assert objection_to(token(2), stored(3), KEYS) is Reason.TOKEN_REVOKED


def test_while_the_new_epoch_has_no_key_the_old_token_is_revoked() -> None:
    assert objection_to(token(2), stored(3, None), KEYS) is Reason.TOKEN_REVOKED


def test_an_earlier_token_under_another_key_is_revoked() -> None:
    assert objection_to(token(2, "k2"), stored(3), KEYS) is Reason.TOKEN_REVOKED


def test_the_token_of_a_retired_agent_or_deleted_workspace_is_revoked() -> None:
    assert objection_to(token(3), stored(3, retired=True), KEYS) is Reason.TOKEN_REVOKED
    assert objection_to(token(3), stored(3, deleted=True), KEYS) is Reason.TOKEN_REVOKED


def test_a_token_that_never_was_one_is_invalid_whatever_became_of_the_agent() -> None:
    forged = f"pba_k1_{AGENT}_AAAA"

    assert objection_to(forged, stored(3), KEYS) is Reason.CREDENTIALS_INVALID
    assert objection_to(forged, stored(3, retired=True, deleted=True), KEYS) is Reason.CREDENTIALS_INVALID
    assert objection_to(token(4), stored(3), KEYS) is Reason.CREDENTIALS_INVALID
    assert objection_to(token(3, agent=AgentId(uuid4())), stored(3), KEYS) is Reason.CREDENTIALS_INVALID
    assert objection_to("nonsense", stored(3), KEYS) is Reason.CREDENTIALS_INVALID


def test_a_token_of_a_key_that_is_gone_is_invalid() -> None:
    assert objection_to(token(3), stored(3), {"k2": b"two"}) is Reason.CREDENTIALS_INVALID


def test_what_is_far_too_old_costs_no_more_than_a_few_signatures() -> None:
    assert objection_to(token(1), stored(EARLIER_EPOCHS + 3), KEYS) is Reason.CREDENTIALS_INVALID
