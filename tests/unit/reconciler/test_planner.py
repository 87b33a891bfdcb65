"""Properties of every plan, and the rules that the shared cases leave out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.planner import (
    Block,
    Config,
    Create,
    Delete,
    DeleteReason,
    Plan,
    can_skip,
    name_deletions,
    plan,
)
from prebuilds.reconciler.rules.state import Activity, Counts, History, Policy, Prebuild, count, is_expired
from prebuilds.reconciler.rules.target import Wish

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)
CONFIG = Config()

ages = st.integers(0, 400).map(lambda minutes: NOW - timedelta(minutes=minutes))
pools = st.lists(
    st.builds(
        Prebuild,
        st.uuids().map(WorkspaceId),
        ages,
        st.sampled_from(list(Activity)),
        st.booleans(),
    ),
    max_size=12,
)
policies = st.builds(
    Policy,
    is_active=st.booleans(),
    wish=st.builds(Wish, st.integers(0, 6)),
    ttl=st.sampled_from([None, timedelta(hours=1), timedelta(hours=3)]),
    last_invalidated_at=st.one_of(st.none(), ages),
    status=st.sampled_from(list(PresetStatus)),
    retry_requested_at=st.one_of(st.none(), ages),
    max_starting=st.one_of(st.none(), st.integers(1, 3)),
)
histories = st.builds(
    History,
    failed=st.integers(0, 4),
    last_failed_at=st.one_of(st.none(), ages),
    newest_failed_rank=st.one_of(st.none(), st.integers(1, 8)),
    template_faults_in_a_row=st.integers(0, 3),
    newest_at=st.one_of(st.none(), ages),
)


def planned(policy: Policy, pool: list[Prebuild], history: History) -> Plan:
    result = plan(policy, count(policy, pool, NOW), history, NOW, CONFIG)
    return name_deletions(result, policy, pool, NOW)


def created(result: Plan) -> int:
    return sum(action.count for action in result.actions if isinstance(action, Create))


def deleted(result: Plan) -> list[WorkspaceId]:
    return [id_ for action in result.actions if isinstance(action, Delete) for id_ in action.workspace_ids]


@given(policies, pools, histories)
def test_skippable_implies_no_actions(policy: Policy, pool: list[Prebuild], history: History) -> None:
    if can_skip(policy, count(policy, pool, NOW)):
        assert planned(policy, pool, history).actions == ()


@given(policies, pools, histories)
def test_never_more_is_created_than_is_missing(policy: Policy, pool: list[Prebuild], history: History) -> None:
    result = planned(policy, pool, history)
    unexpired = result.state.actual - result.state.expired
    assert created(result) <= max(result.state.desired - unexpired - result.state.starting, 0)


@given(policies, pools, histories)
def test_what_is_wanted_is_never_deleted_and_the_oldest_go_first(
    policy: Policy, pool: list[Prebuild], history: History
) -> None:
    result = planned(policy, pool, history)
    running = [each for each in pool if each.activity is Activity.RUNNING]
    gone = set(deleted(result))
    assert gone <= {each.workspace_id for each in running}
    kept = [each for each in running if each.workspace_id not in gone and not is_expired(policy, each.created_at, NOW)]
    unexpired_gone = [
        each for each in running if each.workspace_id in gone and not is_expired(policy, each.created_at, NOW)
    ]
    if unexpired_gone:
        assert len(kept) == (result.state.desired if policy.is_active else 0)
        assert all(old.created_at <= young.created_at for old in unexpired_gone for young in kept)


@given(policies, pools, histories)
def test_planned_again_after_it_was_done_there_is_nothing_to_do(
    policy: Policy, pool: list[Prebuild], history: History
) -> None:
    policy = replace(policy, status=PresetStatus.HEALTHY, max_starting=None)
    result = planned(policy, pool, History())
    gone = set(deleted(result))
    canceled = not policy.is_active
    after = [
        replace(each, activity=Activity.DELETING) if each.workspace_id in gone else each
        for each in pool
        if not (canceled and each.activity is Activity.QUEUED)
    ]
    after += [Prebuild(WorkspaceId(UUID(int=n)), NOW, Activity.QUEUED) for n in range(created(result))]
    assert planned(policy, after, History()).actions == ()


def test_too_many_starting_of_the_template_bound_the_creates() -> None:
    policy = Policy(is_active=True, wish=Wish(5), max_starting=4)
    result = plan(policy, Counts(), History(), NOW, CONFIG, template_starting=3)
    assert (result.actions, result.blocks) == ((Create(1),), (Block.MAX_STARTING,))


def test_too_many_faults_of_the_template_stop_creates_and_not_deletes() -> None:
    policy = Policy(is_active=True, wish=Wish(2), ttl=timedelta(hours=1))
    counts = Counts(running=1, expired=1)
    result = plan(policy, counts, History(failed=3, template_faults_in_a_row=3), NOW, CONFIG)
    assert result.is_hard_limited
    assert result.actions == (Delete(DeleteReason.EXPIRED, 1),)


def test_a_limit_of_zero_is_off() -> None:
    policy = Policy(is_active=True, wish=Wish(2))
    config = Config(hard_limit=0)
    assert not plan(policy, Counts(), History(template_faults_in_a_row=9), NOW, config).is_hard_limited


def test_a_retry_lets_one_through_and_then_no_more() -> None:
    policy = Policy(is_active=True, wish=Wish(3), status=PresetStatus.HARD_LIMITED, retry_requested_at=NOW)
    before = History(template_faults_in_a_row=3, newest_at=NOW - timedelta(minutes=1))
    assert plan(policy, Counts(), before, NOW, CONFIG).actions == (Create(1),)
    assert plan(policy, Counts(starting=1), before, NOW, CONFIG).actions == ()
    tried = replace(before, newest_at=NOW + timedelta(seconds=1))
    assert plan(policy, Counts(), tried, NOW, CONFIG).actions == ()


def test_failures_behind_enough_newer_starts_count_no_more() -> None:
    policy = Policy(is_active=True, wish=Wish(2))
    counts = Counts(running=1)
    history = History(failed=1, last_failed_at=NOW, newest_failed_rank=2)
    assert not plan(policy, counts, history, NOW, CONFIG).has_work
    assert plan(policy, counts, replace(history, newest_failed_rank=3), NOW, CONFIG).actions == (Create(1),)
