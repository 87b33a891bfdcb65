"""The claim: one statement that takes the best eligible prebuild and writes all that a claim writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from prebuilds.domain.builds import PERSON_PRIORITY
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import (
    BuildId,
    ClaimId,
    JobId,
    OrganizationId,
    PresetId,
    TemplateId,
    UserId,
    WorkspaceId,
)
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.audit import Actor
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")
_PASSING_OVER: Final = _queries["claim"]
_WAITING: Final = _PASSING_OVER.replace(b"FOR UPDATE OF p SKIP LOCKED", b"FOR UPDATE OF p")


@dataclass(frozen=True, slots=True)
class ClaimOrder:
    """What is claimed, by whom, and what the workspace becomes."""

    organization_id: OrganizationId
    preset_id: PresetId
    owner_id: UserId
    owner_name: str
    initiator_id: UserId
    name: str
    actor: Actor
    method: str
    request_id: str
    """Empty: the request is not put on record."""
    fingerprint: bytes
    requested_at: datetime
    build_id: BuildId
    parameters: Mapping[str, str]
    """What the owner chose beyond the preset's values."""
    ttl: timedelta | None
    """How long it runs before it is stopped; None: for ever."""
    autostart: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A prebuild that now belongs to a person."""

    claim_id: ClaimId
    build_id: BuildId
    workspace_id: WorkspaceId
    generation: int
    strategy: ClaimStrategy


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """The request id was used before; nothing was taken."""


@dataclass(frozen=True, slots=True)
class NothingEligible:
    """No eligible prebuild that nobody else holds; the request is on record."""


@dataclass(frozen=True, slots=True)
class _Row:
    admitted: bool
    workspace_id: WorkspaceId | None
    template_id: TemplateId | None
    preset_id: PresetId | None
    generation: int | None
    claim_strategy: str | None
    at: datetime


async def claim(
    tx: Transaction, order: ClaimOrder, *, wait_for_locks: bool = False
) -> Claimed | NothingEligible | NotAdmitted:
    """Claim by one statement (behaviour section 6), which first puts the request on record, if it has an id.

    Locks requests, prebuilds (passing over locked rows, or waiting for them), workspaces, and inserts builds, jobs,
    claims, pool events, audit and outbox. Raises Refusal NAME_TAKEN when the owner has a workspace of this name; the
    transaction is then to be rolled back, which puts the prebuild back into its pool. Eligible is what is so at this
    statement's snapshot, so call it first in its transaction.
    """
    ids = _Ids()
    traceparent = tx.database.trace_context()
    parameters = _parameters(order, ids, traceparent)
    try:
        row = await tx.fetch_one(_WAITING if wait_for_locks else _PASSING_OVER, parameters, row=_Row)
    except UniqueViolation as violation:
        if violation.diag.constraint_name != "uq_workspaces_name_live":
            raise
        raise Refusal(Reason.NAME_TAKEN, f"you have a workspace named {order.name!r}") from violation
    if row is None or not row.admitted:
        return NotAdmitted()
    if row.workspace_id is None or row.generation is None or row.claim_strategy is None:
        return NothingEligible()
    strategy = ClaimStrategy(row.claim_strategy)
    tx.appended.extend(_appended(row, order, ids, strategy, traceparent))
    return Claimed(ids.claim_id, order.build_id, row.workspace_id, row.generation, strategy)


@dataclass(frozen=True, slots=True)
class _Ids:
    """Ids that are made here, so that the statement need not tell them."""

    claim_id: ClaimId = field(default_factory=lambda: ClaimId(uuid4()))
    job_id: JobId = field(default_factory=lambda: JobId(uuid4()))
    claimed_event_id: UUID = field(default_factory=uuid4)
    second_event_id: UUID = field(default_factory=uuid4)


def _parameters(order: ClaimOrder, ids: _Ids, traceparent: str | None) -> dict[str, object]:
    return {
        "organization_id": order.organization_id,
        "preset_id": order.preset_id,
        "owner_id": order.owner_id,
        "owner_name": order.owner_name,
        "initiator_id": order.initiator_id,
        "name": order.name,
        "principal": order.actor.principal,
        "principal_name": order.actor.name,
        "method": order.method,
        "request_id": order.request_id,
        "fingerprint": order.fingerprint,
        "requested_at": order.requested_at,
        "parameters": Jsonb(dict(order.parameters)),
        "ttl": order.ttl,
        "autostart": order.autostart,
        "build_id": order.build_id,
        "job_id": ids.job_id,
        "claim_id": ids.claim_id,
        "claimed_event_id": ids.claimed_event_id,
        "second_event_id": ids.second_event_id,
        "priority": PERSON_PRIORITY,
        "traceparent": traceparent,
    }


def _appended(
    row: _Row, order: ClaimOrder, ids: _Ids, strategy: ClaimStrategy, traceparent: str | None
) -> Iterator[OutboxRow]:
    """Give the events that the statement has written."""
    payload = {
        "workspace_id": str(row.workspace_id),
        "preset_id": str(row.preset_id),
        "template_id": str(row.template_id),
        "claim_id": str(ids.claim_id),
        "generation": row.generation,
    }
    assert row.workspace_id is not None  # noqa: S101 - or nothing was claimed
    second: tuple[EventKind, UUID] = (
        (EventKind.HANDOVER_DUE, row.workspace_id)
        if strategy is ClaimStrategy.INSTANT
        else (EventKind.JOB_QUEUED, ids.job_id)
    )
    for event_id, (kind, subject_id) in (
        (ids.claimed_event_id, (EventKind.CLAIMED, row.workspace_id)),
        (ids.second_event_id, second),
    ):
        yield OutboxRow(event_id, kind, subject_id, order.organization_id, payload, traceparent, row.at)
