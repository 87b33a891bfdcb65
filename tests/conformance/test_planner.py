"""`planner.json`: state and actions of a pool."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import NAMESPACE_OID, uuid5

import pytest

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.planner import (
    Action,
    BackOff,
    CancelPending,
    Config,
    Create,
    Delete,
    Plan,
    can_skip,
    name_deletions,
    plan,
)
from prebuilds.reconciler.rules.schedule import Schedule
from prebuilds.reconciler.rules.state import Activity, Counts, History, Policy, Prebuild, count
from prebuilds.reconciler.rules.target import compile_wish
from tests.conformance.cases import Case, load, moment

ACTIVITIES = {
    "pending": Activity.QUEUED,
    **{activity.value: activity for activity in Activity if activity is not Activity.QUEUED},
}


@pytest.mark.parametrize("case", load("planner.json"))
def test_plan(case: Case) -> None:
    expected, names = case["expect"], {_id(each["id"]): each["id"] for each in case["prebuilds"]}
    policy, counts, planned = _plan(case)
    for key, value in expected.get("state", {}).items():
        assert getattr(planned.state, key) == value, key
    kinds = {_kind(action) for action in planned.actions}
    assert not kinds & set(expected.get("forbidden_actions", ()))
    if "actions" in expected:
        assert len(planned.actions) == len(expected["actions"])
        for action, wanted in zip(planned.actions, expected["actions"], strict=True):
            _compare(action, wanted, names)
    if "can_skip" in expected:
        assert can_skip(policy, counts) == expected["can_skip"]
    assert not (can_skip(policy, counts) and planned.actions)


def _plan(case: Case) -> tuple[Policy, Counts, Plan]:
    now, preset = moment(case["now"]), case["preset"]
    schedules = [Schedule(each["cron"], each["instances"]) for each in preset.get("schedules", ())]
    policy = Policy(
        is_active=preset["active_version"] and not preset["deleted"] and not preset["deprecated"],
        wish=compile_wish(preset["desired_instances"], preset.get("timezone", ""), schedules),
        ttl=timedelta(seconds=preset["ttl_s"]) if preset.get("ttl_s") else None,
        last_invalidated_at=_optional(preset.get("last_invalidated_at")),
        status=PresetStatus.HARD_LIMITED if preset.get("hard_limited") else PresetStatus.HEALTHY,
    )
    prebuilds = [
        Prebuild(_id(each["id"]), moment(each["created_at"]), ACTIVITIES[each["state"]], is_ready=each["ready"])
        for each in case["prebuilds"]
        if each["state"] != "deleted"
    ]
    counts = _with_more(count(policy, prebuilds, now), case.get("in_progress", {}), case.get("pending", 0))
    backoff = case.get("backoff")
    history = (
        History(failed=backoff["num_failed"], last_failed_at=moment(backoff["last_build_at"])) if backoff else History()
    )
    config = Config(backoff_interval=timedelta(seconds=case["config"]["backoff_interval_s"]))
    planned = plan(policy, counts, history, now, config)
    return policy, counts, name_deletions(planned, policy, prebuilds, now)


def _with_more(counts: Counts, more: dict[str, int], pending: int) -> Counts:
    fields = {name: getattr(counts, name) for name in Counts.__slots__}
    total = Counter(fields)
    total.update(more)
    total["queued"] += pending
    return Counts(**total)


def _compare(action: Action, wanted: dict[str, Any], names: dict[WorkspaceId, str]) -> None:
    assert _kind(action) == wanted["type"]
    match action:
        case Create(number):
            assert number == wanted["count"]
        case Delete():
            assert action.count == len(action.workspace_ids) == wanted["count"]
            if "ids" in wanted:
                assert sorted(names[id_] for id_ in action.workspace_ids) == sorted(wanted["ids"])
        case BackOff(until):
            assert until == moment(wanted["until"])
        case CancelPending():
            pass
        case _:
            assert_never(action)


def _kind(action: Action) -> str:
    match action:
        case Create():
            return "create"
        case Delete():
            return "delete"
        case BackOff():
            return "backoff"
        case CancelPending():
            return "cancel_pending"
        case _:
            assert_never(action)


def _id(name: str) -> WorkspaceId:
    return WorkspaceId(uuid5(NAMESPACE_OID, name))


def _optional(text: str | None) -> datetime | None:
    return moment(text) if text else None
