from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.text import Text

from prebuilds.cli.explaining import Surroundings, explain, state_word
from prebuilds.cli.moments import timestamp_of
from prebuilds.v1 import pool_pb2, template_pb2

NOW = datetime(2026, 7, 31, 14, 47, 12, tzinfo=UTC)
HARD_LIMITED = pool_pb2.PoolBlock(
    kind=pool_pb2.BLOCK_KIND_HARD_LIMITED,
    since_time=timestamp_of(NOW - timedelta(minutes=3)),
    detail="startup: exit status 7\n\x1b[31mno such host\x1b[0m\n",
)
BACKING_OFF = pool_pb2.PoolBlock(
    kind=pool_pb2.BLOCK_KIND_BACKING_OFF,
    since_time=timestamp_of(NOW - timedelta(days=1)),
    until_time=timestamp_of(NOW + timedelta(seconds=40)),
)
PAUSED = pool_pb2.PoolBlock(
    kind=pool_pb2.BLOCK_KIND_PAUSED,
    since_time=timestamp_of(NOW - timedelta(hours=2)),
    pause=pool_pb2.Pause(scope=pool_pb2.PAUSE_SCOPE_TEMPLATE, message="new base image", creator_name="ann"),
)
CREATE = pool_pb2.Action(reason=pool_pb2.ACTION_REASON_BELOW_TARGET, create=pool_pb2.CreateAction(count=2))
DELETE = pool_pb2.Action(reason=pool_pb2.ACTION_REASON_EXPIRED, delete=pool_pb2.DeleteAction(workspace_ids=["a", "b"]))


def pool(**fields: Any) -> pool_pb2.Pool:
    made = pool_pb2.Pool(
        id="p",
        name="small",
        template_name="python-dev",
        version_name="v2",
        active=True,
        snapshot_time=timestamp_of(NOW),
    )
    made.target.CopyFrom(pool_pb2.PoolTarget(instances=3, source=pool_pb2.TARGET_SOURCE_INSTANCES))
    made.counts.CopyFrom(pool_pb2.PoolCounts(desired=3, actual=3, eligible=3))
    made.MergeFrom(pool_pb2.Pool(**fields))
    if fields.get("active") is False:
        made.active = False
    return made


def preset(*crons: tuple[str, int], timezone: str = "") -> template_pb2.Preset:
    schedules = [template_pb2.Schedule(cron=cron, instances=number) for cron, number in crons]
    return template_pb2.Preset(prebuilds=template_pb2.PrebuildsPolicy(timezone=timezone, schedules=schedules))


def told(shown: pool_pb2.Pool, of: template_pb2.Preset | None = None, **template: Any) -> dict[str, str]:
    facts = explain(shown, Surroundings(of or preset(), template_pb2.Template(**template)))
    return {name: value.plain if isinstance(value, Text) else value for name, value in facts.items()}


@pytest.mark.parametrize(
    "fields, word",
    [
        ({}, "full"),
        ({"counts": pool_pb2.PoolCounts(eligible=2)}, "filling"),
        ({"target": pool_pb2.PoolTarget(instances=4)}, "filling"),
        ({"counts": pool_pb2.PoolCounts(extraneous=1)}, "shrinking"),
        ({"active": False}, "draining"),
        ({"blocked_by": [HARD_LIMITED]}, "hard limited"),
        ({"blocked_by": [HARD_LIMITED, PAUSED]}, "hard limited, paused"),
    ],
)
def test_a_pools_state_is_a_word_or_two(fields: dict[str, Any], word: str) -> None:
    assert state_word(pool(**fields)) == word


def test_an_inactive_pool_that_is_empty_is_off() -> None:
    empty = pool(active=False)
    empty.counts.Clear()
    assert state_word(empty) == "off"


def test_a_target_by_a_schedule_names_it_and_the_next_change_in_its_zone() -> None:
    target = pool_pb2.PoolTarget(
        instances=5,
        source=pool_pb2.TARGET_SOURCE_SCHEDULE,
        schedule_index=1,
        next_change_time=timestamp_of(datetime(2026, 7, 31, 17, tzinfo=UTC)),
        next_instances=2,
    )
    of = preset(("* 0-7 * * *", 1), ("* 8-18 * * 1-5", 5), timezone="Europe/Berlin")

    facts = told(pool(target=target), of)

    assert facts["target"] == "5, by schedule `* 8-18 * * 1-5` in Europe/Berlin"
    assert facts["next change"] == "to 2 at Fri 2026-07-31 19:00 Europe/Berlin (+02:00), in 2h12m"
    assert facts["as of"] == "Fri 2026-07-31 16:47:12 Europe/Berlin (+02:00)"


def test_a_target_by_instances_says_where_schedules_do_not_hold() -> None:
    assert told(pool())["target"] == "3, by the preset's instances"
    of = preset(("* 0 * * *", 1), timezone="UTC")
    assert told(pool(), of)["target"] == "3, by the preset's instances, no schedule holds"
    assert told(pool())["next change"] == "none by itself"


@pytest.mark.parametrize(
    "template, why",
    [
        ({"active_version_name": "v3"}, "v3 is active"),
        ({"active_version_name": "v2", "deprecation_message": "use go"}, "the template is deprecated: use go"),
        ({"active_version_name": "v2", "deprecation_message": "x", "deleted": True}, "the template is deleted"),
    ],
)
def test_a_target_of_nothing_says_why(template: dict[str, Any], why: str) -> None:
    inactive = pool(active=False, target=pool_pb2.PoolTarget(source=pool_pb2.TARGET_SOURCE_INACTIVE))
    inactive.target.instances = 0
    assert told(inactive, **template)["target"] == f"0, because {why}"


def test_what_blocks_is_told_with_since_when_and_the_error_without_what_steers_a_terminal() -> None:
    assert told(pool(blocked_by=[HARD_LIMITED, BACKING_OFF, PAUSED]))["blocked by"].splitlines() == [
        "hard limited since 14:44:12 (3m ago)",
        "  startup: exit status 7",
        "   [31mno such host [0m",
        "backing off since Thu 2026-07-30 14:47:12 UTC (1d ago) until 14:47:52 (in 40s)",
        "paused (template) by ann since 12:47:12 (2h ago)",
        "  new base image",
    ]


def test_what_ends_each_block_is_told_in_their_order() -> None:
    shown = pool(blocked_by=[HARD_LIMITED, BACKING_OFF, PAUSED])
    shown.name = "small one"
    assert told(shown)["ends with"].splitlines() == [
        "a new version, or `prebuilds pools retry 'python-dev/small one'`",
        "time",
        "`prebuilds pools resume python-dev`",
    ]


@pytest.mark.parametrize(
    "scope, template, is_active, words",
    [
        (pool_pb2.PAUSE_SCOPE_DEPLOYMENT, {"deleted": True}, False, "--deployment"),
        (pool_pb2.PAUSE_SCOPE_TEMPLATE, {}, False, "python-dev"),
        (pool_pb2.PAUSE_SCOPE_TEMPLATE, {"deleted": True}, False, "--template t"),
        (pool_pb2.PAUSE_SCOPE_PRESET, {}, True, "python-dev/small"),
        (pool_pb2.PAUSE_SCOPE_PRESET, {}, False, "python-dev/small -V v2"),
        (pool_pb2.PAUSE_SCOPE_PRESET, {"deleted": True}, False, "p"),
    ],
)
def test_what_ends_a_pause_reaches_the_very_pool_that_is_paused(
    scope: pool_pb2.PauseScope.ValueType, template: dict[str, Any], is_active: bool, words: str
) -> None:
    block = pool_pb2.PoolBlock(kind=pool_pb2.BLOCK_KIND_PAUSED, pause=pool_pb2.Pause(scope=scope))
    shown = pool(active=is_active, template_id="t", blocked_by=[block])
    assert told(shown, **template)["ends with"] == f"`prebuilds pools resume {words}`"


def test_the_next_pass_is_told_action_by_action() -> None:
    back_off = pool_pb2.Action(
        reason=pool_pb2.ACTION_REASON_RECENT_FAILURES,
        back_off=pool_pb2.BackOffAction(until_time=timestamp_of(NOW + timedelta(seconds=40)), failure_count=1),
    )
    cancel = pool_pb2.Action(
        reason=pool_pb2.ACTION_REASON_INACTIVE, cancel_pending=pool_pb2.CancelPendingAction(count=4)
    )
    assert told(pool())["next pass"] == "nothing"
    assert told(pool(plan=[DELETE, CREATE]))["next pass"].splitlines() == [
        "delete 2: expired",
        "create 2: below the target",
    ]
    assert told(pool(plan=[back_off]))["next pass"] == "create none until 14:47:52 (in 40s): 1 build failed"
    assert told(pool(plan=[cancel]))["next pass"] == "cancel 4 that no daemon has taken: not active"


def test_a_paused_pool_tells_what_would_be_done_without_the_pause() -> None:
    assert told(pool(plan=[CREATE], blocked_by=[PAUSED]))["next pass"] == (
        "nothing, because it is paused; else: create 2: below the target"
    )


def test_counts_that_are_zero_are_left_out() -> None:
    assert told(pool())["prebuilds"] == "3 running (3 eligible)"
    counts = pool_pb2.PoolCounts(expired=1, starting=2, failed=3, parked=1)
    assert told(pool(counts=counts))["prebuilds"] == (
        "3 running (3 eligible, 1 expired), 2 starting, 1 stopped, 3 failed, kept for inspection"
    )
