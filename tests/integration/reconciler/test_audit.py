"""Who changed what, over gRPC."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import MessageToDict
from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.queries.audit import audit_events
from prebuilds.reconciler.queries.filters import AuditFilter
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.builders import make_organization
from tests.support.people import Team
from tests.support.reconciling import ORGANIZATION, Client, refused

NEWEST: Final = datetime(2026, 6, 1, tzinfo=UTC)


async def events(client: Client, **fields: Any) -> Sequence[admin_pb2.AuditEvent]:
    request = pb.ListAuditEventsRequest(**fields)
    return (await client.admin.ListAuditEvents(request, metadata=client.metadata)).audit_events


async def actions(client: Client, **fields: Any) -> Sequence[str]:
    return [event.action for event in await events(client, **fields)]


async def test_events_are_told_newest_first_with_who_did_what_to_what(team: Team) -> None:
    alice = await team.member("alice")
    root = await team.get_member("root")

    newest, first = await events(team.operator, organization=ORGANIZATION)

    assert (newest.action, newest.resource_type, newest.resource_id, newest.resource_name) == (
        "member.create",
        "member",
        alice.user_id,
        "alice",
    )
    assert (newest.actor_kind, newest.actor_id, newest.actor_name) == (
        admin_pb2.ACTOR_KIND_PERSON,
        root.user_id,
        "root",
    )
    assert newest.organization_id == first.organization_id == team.organization.id
    assert MessageToDict(newest.details) == {"roles": ["member"]}
    assert first.action == "organization.create"
    assert int(newest.id) > int(first.id)


async def test_owners_and_auditors_read_their_organisations_and_operators_all(team: Team) -> None:
    await team.operator.make_organization("other")
    await team.user("alice")
    auditor = await team.client("ada", Role.AUDITOR)
    owner = await team.client("owner", Role.OWNER)
    member = await team.client("ann", Role.MEMBER)

    assert await actions(auditor, organization=ORGANIZATION) == ["organization.create"]
    assert await actions(owner, organization=ORGANIZATION) == ["organization.create"]
    assert await actions(team.operator) == ["user.create", "organization.create", "organization.create"]
    with refused(Reason.PERMISSION_DENIED):
        await actions(member, organization=ORGANIZATION)
    with refused(Reason.NOT_FOUND):
        await actions(owner, organization="other")
    with refused(Reason.INVALID_FIELDS):
        await actions(owner)


async def test_filters_and_times_narrow_the_list(team: Team, database: Database) -> None:
    alice = await team.user("alice")
    bob = await team.user("bob")
    daemon = uuid4()
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.AuditEvent).values(
                principal=f"daemon:{daemon}",
                principal_name="local",
                action="test",
                resource="job",
                resource_id=daemon,
                resource_name="",
            )
        )
    operator = team.operator
    second, first = await events(operator, filter="resource_type=user")

    assert [first.resource_id, second.resource_id] == [alice.id, bob.id]
    assert await actions(operator, filter="actor=local") == ["test"]
    assert await actions(operator, filter=f"actor={daemon}") == ["test"]
    assert await actions(operator, filter="actor_kind=daemon") == ["test"]
    assert await actions(operator, filter=f"resource_id={bob.id}") == ["user.create"]
    assert await actions(operator, filter="action=user.create AND actor=nobody") == []
    since = await events(operator, start_time=second.event_time, filter="resource_type=user")
    assert list(since) == [second]
    before = await events(operator, end_time=second.event_time, filter="resource_type=user")
    assert list(before) == [first]


async def test_events_come_in_pages(team: Team) -> None:
    for name in ("alice", "bob", "carol"):
        await team.user(name)
    request, seen = pb.ListAuditEventsRequest(page_size=3), list[str]()
    while True:
        listed = await team.operator.admin.ListAuditEvents(request, metadata=team.operator.metadata)
        seen.extend(event.resource_name for event in listed.audit_events)
        request.page_token = listed.next_page_token
        if not request.page_token:
            break

    assert seen == ["carol", "bob", "alice", "acme"]


@pytest.mark.parametrize(
    "key",
    [
        *[("2026-01-01 00:00:00+00:00", number) for number in ("-1", str(2**63), "9" * 5000, "x")],
        ("2026-01-01 00:00:00", "1"),
        ("yesterday", "1"),
        ("1",),
    ],
)
async def test_a_made_up_page_token_is_refused(team: Team, key: Sequence[str]) -> None:
    request = pb.ListAuditEventsRequest(page_size=1)
    listed = await team.operator.admin.ListAuditEvents(
        pb.ListAuditEventsRequest(page_size=1, organization=ORGANIZATION), metadata=team.operator.metadata
    )
    assert not listed.next_page_token
    await team.user("alice")
    listed = await team.operator.admin.ListAuditEvents(request, metadata=team.operator.metadata)
    query, *_ = json.loads(base64.urlsafe_b64decode(listed.next_page_token))
    request.page_token = base64.urlsafe_b64encode(json.dumps([query, *key]).encode()).decode()

    with refused(Reason.PAGE_TOKEN_INVALID):
        await team.operator.admin.ListAuditEvents(request, metadata=team.operator.metadata)


async def test_no_secret_is_written_down(team: Team) -> None:
    key = admin_pb2.ProvisionerKey(name="local", tags={"host": "a"})
    request = pb.CreateProvisionerKeyRequest(organization=ORGANIZATION, provisioner_key=key)
    created = await team.operator.admin.CreateProvisionerKey(request, metadata=team.operator.metadata)

    (event,) = await events(team.operator, filter="action=provisioner_key.create")

    assert MessageToDict(event.details) == {"tags": {"host": "a"}}
    assert created.secret.rpartition("_")[2] not in str(event)


HISTORY = 20_000
"""Events of a hundred organisations in turn, one a minute."""


@pytest.mark.parametrize(
    "wanted, in_organization, index",
    [
        (AuditFilter(), True, "ix_audit_log_organization"),
        (AuditFilter(), False, "ix_audit_log_time"),
        (AuditFilter(end=NEWEST - timedelta(days=7)), True, "ix_audit_log_organization"),
        (AuditFilter(start=NEWEST - timedelta(minutes=3)), True, "ix_audit_log_organization"),
        (
            AuditFilter(start=NEWEST - timedelta(days=7, minutes=200), end=NEWEST - timedelta(days=7)),
            True,
            "ix_audit_log_organization",
        ),
        (
            AuditFilter(start=NEWEST - timedelta(days=7, minutes=200), end=NEWEST - timedelta(days=7)),
            False,
            "ix_audit_log_time",
        ),
        (AuditFilter(resource_id=UUID(int=700)), True, "ix_audit_log_resource"),
        (AuditFilter(resource_id=UUID(int=700)), False, "ix_audit_log_resource"),
    ],
)
async def test_a_page_reads_no_more_of_the_history_than_it_shows(
    database: Database, wanted: AuditFilter, index: str, *, in_organization: bool
) -> None:
    organizations = [await make_organization(database, f"o-{number}") for number in range(100)]
    organization_id = organizations[0]
    async with database.transaction("test") as tx:
        await tx.run(
            b"""
            INSERT INTO audit_log (
                organization_id, principal, principal_name, action, resource, resource_id, resource_name, created_at
            )
            SELECT
                (%(organizations)s::uuid[])[n %% 100 + 1], 'person:x', 'x', 'job.test', 'job',
                ('00000000-0000-0000-0000-' || lpad(to_hex(n / 500 * 100 + n %% 100), 12, '0'))::uuid, '',
                %(newest)s::timestamptz - (%(history)s - n) * interval '1 minute'
            FROM generate_series(1, %(history)s) AS n
            """,
            {"organizations": organizations, "newest": NEWEST, "history": HISTORY},
        )
        await tx.run(b"ANALYZE audit_log")
    statement = audit_events(organization_id if in_organization else None, wanted, before=None, limit=11)
    compiled = statement.compile(dialect=psycopg_dialect.dialect())

    async with database.read("test") as tx:
        explained = b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + str(compiled).encode()
        (plans,) = await (await tx.run(explained, compiled.params)).fetchone() or ([],)

    scans = [node for node in nodes(plans[0]["Plan"]) if "Index Name" in node or "Relation Name" in node]
    assert {node["Index Name"] for node in scans if "Index Name" in node} == {index}
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    read = sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans)
    assert 0 < read <= 11


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(below for child in plan.get("Plans", ()) for below in nodes(child))]
