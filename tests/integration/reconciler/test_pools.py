"""Pools as people see them, over gRPC."""

from __future__ import annotations

from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
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
