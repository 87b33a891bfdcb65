"""Rules of the manifest for values, at creation and at start."""

from __future__ import annotations

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from prebuilds.domain.parameters import ParameterType
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.rules.manifest import ParameterRules, ParameterSpec
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from tests.support.claims import ClaimsService, change, refuses, rows

PARAMETERS = [
    ParameterSpec(name="size"),
    ParameterSpec(
        name="dotfiles",
        validation=ParameterRules(regex="https://[a-z.]+(/[a-z]*)?|", error="an https address, please"),
    ),
    ParameterSpec(name="cpus", type=ParameterType.NUMBER, validation=ParameterRules(min=0.5, max=8)),
]


@pytest_asyncio.fixture
async def ruled(database: Database, pool: PoolKey) -> PoolKey:
    """A version whose manifest has rules for some values, as a push stores it."""
    manifest = {"parameters": [spec.model_dump(mode="json") for spec in PARAMETERS]}
    await change(database, schema.TemplateVersion, pool.version_id, manifest=manifest)
    return pool


@pytest.mark.parametrize("preset", ["", "small"])
async def test_values_that_break_the_manifests_rules_are_refused_at_creation(
    claims_service: ClaimsService, database: Database, ruled: PoolKey, preset: str
) -> None:
    person = await claims_service.person()

    with refuses(Reason.INVALID_FIELDS) as refused:
        await person.create(preset=preset, parameters={"dotfiles": "http://x", "cpus": "8.000001"})

    assert set(refused.fields) == {"parameters.dotfiles", "parameters.cpus"}
    assert await rows(database, schema.Workspace) == []
    answer = await person.create(preset=preset, parameters={"dotfiles": "https://x/y", "cpus": "8"})
    assert answer.build.parameters["cpus"] == "8"


async def test_values_that_break_the_manifests_rules_are_refused_at_a_start(
    claims_service: ClaimsService, database: Database, ruled: PoolKey
) -> None:
    person = await claims_service.person()
    created = await person.create(mode=claim_pb2.CLAIM_MODE_COLD)

    with refuses(Reason.INVALID_FIELDS) as refused:
        await person.call(
            "StartWorkspace",
            pb.StartWorkspaceRequest(id=created.workspace.id, parameters={"dotfiles": "x", "cpus": "0.499999"}),
        )

    assert set(refused.fields) == {"parameters.dotfiles", "parameters.cpus"}


@pytest.mark.parametrize(
    "schedule",
    [f"0 {'1' * 5000} * * *", "٣ 8 * * *", "CRON_TZ=localtime 0 8 * * *"],
    ids=["long", "another script", "no zone"],
)
async def test_an_autostart_that_is_none_is_refused(
    claims_service: ClaimsService, pool: PoolKey, schedule: str
) -> None:
    with refuses(Reason.INVALID_FIELDS) as refused:
        await (await claims_service.person()).create(autostart_schedule=schedule)

    assert refused.fields == ("autostart_schedule",)


async def test_a_duration_of_two_signs_is_refused(claims_service: ClaimsService, pool: PoolKey) -> None:
    with refuses(Reason.INVALID_FIELDS) as refused:
        await (await claims_service.person()).create(ttl=Duration(seconds=3600, nanos=-1))

    assert refused.fields == ("ttl",)
