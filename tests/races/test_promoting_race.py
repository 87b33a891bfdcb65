"""Versions promoted amid passes of several reconcilers: only the active one's pool stays filled, without any tick.

In the suite a short form runs; `PREBUILDS_RACE_ROUNDS` says how many rounds.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

from prebuilds.domain.builds import Transition
from tests.support.postgres import deadlocks
from tests.support.reconciling import Stage, make_manifest, open_reconcilers
from tests.support.templates import deprecate, get_template, promote
from tests.support.waiting import eventually

ROUNDS: Final = int(os.environ.get("PREBUILDS_RACE_ROUNDS", "150")) // 10
INSTANCES: Final = 2
REPLICAS: Final = 2


async def test_only_the_active_versions_pool_stays_filled(
    database_url: str, nats_url: str, tmp_path: Path, stage: Stage
) -> None:
    chance = random.Random(1)
    async with open_reconcilers(database_url, nats_url, tmp_path) as reconcilers:
        clients = [await reconcilers.client(await reconcilers.start()) for _ in range(REPLICAS)]
        await clients[0].make_organization()
        versions = [await clients[0].push(make_manifest(instances=INSTANCES)) for _ in range(3)]
        template_id = versions[0].template.id

        async def is_settled() -> bool:
            active_id = (await get_template(clients[0], template_id)).active_version_id
            for pushed in versions:
                alive = [state for state in await stage.states(pushed.presets[0].id) if state != "deleting"]
                if len(alive) != (INSTANCES if pushed.version.id == active_id else 0):
                    return False
            return True

        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as race:
                for client in clients:
                    race.create_task(promote(client, chance.choice(versions).version.id))
                    race.create_task(client.reconcile())
                    race.create_task(deprecate(client, template_id, chance.choice(["", "old"])))
                    race.create_task(client.reconcile())
            await deprecate(chance.choice(clients), template_id, "")

            await eventually(is_settled, what="the pools are settled")
            for pushed in versions:
                preset_id = pushed.presets[0].id
                await stage.finish(await stage.jobs(preset_id, Transition.DELETE))
                await stage.finish((await stage.jobs(preset_id))[: chance.randint(0, INSTANCES)])

    # What connections have counted is seen once they are closed.
    assert await deadlocks(database_url) == 0
