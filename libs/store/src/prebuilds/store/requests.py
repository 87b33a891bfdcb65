"""Requests that were answered: the same id with the same content gets the first answer for 24 h (behaviour section 6).

A transaction admits its request with its first statement, so that of two with one id the second waits for the first's
end. Where it is not admitted, a later statement reads the answer: the one that waited cannot see the winner's row. The
claim's own statement admits in the same way (`pool/claim.sql`). Refusals are not kept: their transaction rolls back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.schema import Request
from prebuilds.store.schema.base import Json
from prebuilds.store.transactions import Transaction

KEPT_FOR: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Whose request it is, of which method, by the caller's id; without an id every call is another request."""

    organization_id: OrganizationId
    principal: str
    method: str
    request_id: str

    def of(self, method: str) -> RequestKey:
        """Give the same request's key under another method's name, for a second thing that happens once per request."""
        return RequestKey(self.organization_id, self.principal, method, self.request_id)


def fingerprint(values: Mapping[str, object]) -> bytes:
    """SHA-256 of a request's plain values: numbers, texts and None, in lists and mappings; their order is no matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).digest()


async def admit(tx: Transaction, key: RequestKey, content: bytes, answer: Json) -> bool:
    """Put the request on record; False where its id is in use, which waits for the end of who uses it.

    `content` is its fingerprint, `answer` whatever the answer can be made from again. Locks the row of requests.
    """
    if not key.request_id:
        return True
    written = insert(Request).values(
        organization_id=key.organization_id,
        principal=key.principal,
        method=key.method,
        request_id=key.request_id,
        fingerprint=content,
        answer=answer,
    )
    statement = written.on_conflict_do_update(
        index_elements=[Request.organization_id, Request.principal, Request.method, Request.request_id],
        set_={
            "fingerprint": written.excluded.fingerprint,
            "answer": written.excluded.answer,
            "created_at": written.excluded.created_at,
        },
        where=Request.created_at < func.now() - KEPT_FOR,
    ).returning(Request.request_id)
    return await tx.scalar(statement) is not None


async def set_answer(tx: Transaction, key: RequestKey, answer: Json) -> None:
    """Replace the answer of a request that this transaction has admitted."""
    if key.request_id:
        await tx.execute(update(Request).where(_is(key)).values(answer=answer))


async def first_answer(tx: Transaction, key: RequestKey, content: bytes) -> Json | None:
    """Read the first answer; None where there is none (any more).

    Raises Refusal REQUEST_ID_REUSED where the id was used for another request.
    """
    statement = select(Request.fingerprint, Request.answer).where(_is(key), Request.created_at >= func.now() - KEPT_FOR)
    row = (await tx.execute(statement)).one_or_none()
    if row is None:
        return None
    known, answer = row
    if known != content:
        raise Refusal(
            Reason.REQUEST_ID_REUSED,
            f"request id {key.request_id!r} was used for another request",
            metadata={"request_id": key.request_id},
        )
    return answer


async def admit_or_answer(tx: Transaction, key: RequestKey, content: bytes, answer: Json) -> Json | None:
    """Put the request on record, or give the first answer; None where it is new. Locks as `admit`.

    Raises Refusal REQUEST_ID_REUSED where the id was used for another request, and TRANSACTION_CONFLICT where the first
    answer expires at this moment.
    """
    if await admit(tx, key, content, answer):
        return None
    first = await first_answer(tx, key, content)
    if first is None:
        raise Refusal(Reason.TRANSACTION_CONFLICT, "the first answer to this request has just expired; ask again")
    return first


def _is(key: RequestKey) -> ColumnElement[bool]:
    return and_(
        Request.organization_id == key.organization_id,
        Request.principal == key.principal,
        Request.method == key.method,
        Request.request_id == key.request_id,
    )
