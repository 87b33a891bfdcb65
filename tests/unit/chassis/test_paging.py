"""Pages: each goes on where the one before ended, and a token is good for its own query only."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest

from prebuilds.chassis.fields import Fields
from prebuilds.chassis.paging import MAX_PAGE_SIZE, PageWish, by_name_and_id, read_page
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.v1.template_service_pb2 import ListTemplatesRequest

ROWS = [("a", UUID(int=1)), ("b", UUID(int=2)), ("c", UUID(int=3))]


def wish(**asked: object) -> PageWish[tuple[str, UUID]]:
    fields = Fields()
    page = read_page(fields, ListTemplatesRequest(**asked), by_name_and_id)  # pyright: ignore[reportArgumentType] - any
    fields.done()
    return page


def test_a_page_goes_on_where_the_one_before_ended() -> None:
    first = wish(organization="acme", page_size=2).cut(ROWS, lambda row: row)
    assert first.things == ROWS[:2]
    second = wish(organization="acme", page_size=5, page_token=first.next_token)
    assert second.after() == ROWS[1]
    assert second.cut(ROWS[2:], lambda row: row).next_token == ""


def test_the_last_page_has_no_token() -> None:
    assert wish(page_size=3).cut(ROWS, lambda row: row).next_token == ""
    assert wish().cut(ROWS[:0], lambda row: row).next_token == ""


def test_a_page_has_a_default_and_a_most() -> None:
    assert wish().limit == 51
    assert wish(page_size=10**6).limit == MAX_PAGE_SIZE + 1
    with pytest.raises(Refusal):
        wish(page_size=-1)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "ü",
        forged(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        forged("another query", "a", str(UUID(int=1))),
        forged(wish().query, "a"),
        forged(wish().query, "a", "no id"),
        forged(wish().query, "a", 1),
        forged(wish().query, "a", str(UUID(int=1)), "more"),
        forged(wish().query, "a\0", str(UUID(int=1))),
        forged(wish().query, "\ud800", str(UUID(int=1))),
        wish(organization="other", page_size=1).cut(ROWS, lambda row: row).next_token,
    ],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(Refusal) as refused:
        wish(page_token=token).after()
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
