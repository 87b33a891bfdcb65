"""Pools as people see them, over gRPC."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import update

from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import pool_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest, refused
from tests.support.waiting import eventually


def presets(*names: str) -> list[dict[str, object]]:
    return [{"name": name, "parameters": {"size": "small"}, "prebuilds": {"instances": 1}} for name in names]


async def test_pools_are_listed_by_template_and_name(operator: Client) -> None:
    await operator.push(make_manifest("b", presets=presets("two", "one")))
    await operator.push(make_manifest("a", presets=[*presets("three"), {"name": "without a pool"}]))
    listing = pb.ListPoolsRequest(organization="acme", page_size=2)

    first = await operator.pools.ListPools(listing, metadata=operator.metadata)
    listing.page_token = first.next_page_token
    second = await operator.pools.ListPools(listing, metadata=operator.metadata)

    listed = [(pool.template_name, pool.name) for pool in (*first.pools, *second.pools)]
    assert listed == [("a", "three"), ("b", "one"), ("b", "two")]
    assert not second.next_page_token


async def test_pools_are_found_by_their_fields(operator: Client) -> None:
    await operator.push(make_manifest("a", presets=presets("one", "two")))

    async def found(condition: str) -> list[str]:
        request = pb.ListPoolsRequest(organization="acme", filter=condition)
        return [pool.name for pool in (await operator.pools.ListPools(request, metadata=operator.metadata)).pools]

    assert await found("preset=two AND template=a") == ["two"]
    assert await found("active=false") == []
    assert await found("blocked=false AND status=healthy") == ["one", "two"]
    with refused(Reason.INVALID_FIELDS):
        await found("color=red")


async def test_a_target_says_where_it_comes_from(operator: Client) -> None:
    scheduling = {"timezone": "UTC", "schedule": [{"cron": "* * * * *", "instances": 2}]}
    spec = {"name": "p", "prebuilds": {"instances": 1, "scheduling": scheduling}}
    pushed = await operator.push(make_manifest(presets=[spec]))

    target = (await operator.pool(pushed.presets[0].id)).target

    assert (target.instances, target.source, target.schedule_index) == (2, pool_pb2.TARGET_SOURCE_SCHEDULE, 0)
    assert not target.HasField("next_change_time")


async def test_a_preset_without_prebuilds_has_no_pool(operator: Client) -> None:
    pushed = await operator.push(make_manifest(presets=[{"name": "cold"}]))
    with refused(Reason.NOT_FOUND):
        await operator.pool(pushed.presets[0].id)


async def test_watching_tells_all_pools_and_then_what_changes(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(presets=presets("one")))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    call = operator.pools.WatchPools(pb.WatchPoolsRequest(organization="acme"), metadata=operator.metadata)
    messages = aiter(call)

    first = await anext(messages)
    assert first.synced
    assert [(pool.name, pool.counts.eligible) for pool in first.pools] == [("one", 0)]
    await stage.make_eligible(preset.id)
    while True:
        told = await anext(messages)
        if told.pools and told.pools[0].counts.eligible == 1:
            break
    call.cancel()


async def test_only_operators_reconcile_all_organisations(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    await (await reconcilers.client(address)).make_organization()
    admin = await reconcilers.client(address, operator=False, name="ada", roles=[Role.TEMPLATE_ADMIN])

    with refused(Reason.PERMISSION_DENIED):
        await admin.reconcile()
    request = pb.ReconcileNowRequest(organization="acme")
    answer = await admin.pools.ReconcileNow(request, metadata=admin.metadata)
    assert answer.statistics.presets_seen == 0


async def test_blocked_pools_are_listed_in_pages(operator: Client, database: Database) -> None:
    pushed = await operator.push(make_manifest("a", presets=presets(*(f"p{number}" for number in range(6)))))
    async with database.transaction("test") as tx:
        odd = [UUID(preset.id) for preset in pushed.presets if int(preset.name[1:]) % 2]
        limited = update(schema.Preset).where(schema.Preset.id.in_(odd))
        await tx.execute(limited.values(status=PresetStatus.HARD_LIMITED))

    for condition, expected in (("blocked=true", ["p1", "p3", "p5"]), ("blocked=false", ["p0", "p2", "p4"])):
        listing = pb.ListPoolsRequest(organization="acme", filter=condition, page_size=2)
        first = await operator.pools.ListPools(listing, metadata=operator.metadata)
        listing.page_token = first.next_page_token
        second = await operator.pools.ListPools(listing, metadata=operator.metadata)

        assert [[pool.name for pool in page.pools] for page in (first, second)] == [expected[:2], expected[2:]]
        assert not second.next_page_token


async def test_a_page_token_that_somebody_made_up_is_refused(operator: Client) -> None:
    await operator.push(make_manifest("a", presets=presets("one", "two")))
    listing = pb.ListPoolsRequest(organization="acme", page_size=1)
    good = (await operator.pools.ListPools(listing, metadata=operator.metadata)).next_page_token
    query, *_ = json.loads(base64.urlsafe_b64decode(good))

    for parts in (["a", "one", "no id"], ["a", "one"], [], ["a\0b", "one", str(uuid4())]):
        listing.page_token = base64.urlsafe_b64encode(json.dumps([query, *parts]).encode()).decode()
        with refused(Reason.PAGE_TOKEN_INVALID):
            await operator.pools.ListPools(listing, metadata=operator.metadata)


async def test_a_pass_that_is_asked_for_goes_no_further_than_its_bounds(operator: Client) -> None:
    one = await operator.push(make_manifest("a", presets=presets("one", "two")))
    other = await operator.push(make_manifest("b", presets=presets("three")))
    await operator.make_organization("elsewhere")

    async def seen(**bounds: Any) -> int:
        request = pb.ReconcileNowRequest(**bounds)
        answer = await operator.pools.ReconcileNow(request, metadata=operator.metadata)
        return answer.statistics.presets_seen

    assert await seen() == 3
    assert await seen(organization="acme") == 3
    assert await seen(organization="elsewhere") == 0
    assert await seen(organization="acme", template="a") == 2
    assert await seen(organization="acme", template="a", preset_ids=[one.presets[0].id]) == 1
    for bounds in (
        {"organization": "nowhere"},
        {"organization": "acme", "template": "c"},
        {"organization": "acme", "template": "a", "preset_ids": [other.presets[0].id]},
        {"organization": "elsewhere", "preset_ids": [one.presets[0].id]},
        {"preset_ids": [str(uuid4())]},
    ):
        with refused(Reason.NOT_FOUND):
            await seen(**bounds)


async def test_all_that_is_wrong_with_a_pass_is_told_at_once(operator: Client) -> None:
    long = "x" * 201
    request = pb.ReconcileNowRequest(template=long, preset_ids=["no id"])
    with refused(Reason.INVALID_FIELDS) as caught:
        await operator.pools.ReconcileNow(request, metadata=operator.metadata)
    assert [violation.field for violation in caught[0].violations] == ["template", "organization", "preset_ids[0]"]
    request = pb.ReconcileNowRequest(organization=long, preset_ids=["no id"] * 1001)
    with refused(Reason.INVALID_FIELDS) as caught:
        await operator.pools.ReconcileNow(request, metadata=operator.metadata)
    assert [violation.field for violation in caught[0].violations] == ["organization", "preset_ids"]
