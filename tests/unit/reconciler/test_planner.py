"""Properties of every plan, and the rules that the shared cases leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.planner import (
    BackOff,
    Block,
    CancelPending,
    Config,
    Create,
    CreateReason,
    Delete,
    DeleteReason,
    Plan,
    can_skip,
    name_deletions,
    plan,
)
from prebuilds.reconciler.rules.state import Activity, Counts, History, Policy, Prebuild, Quota, count, is_expired
from prebuilds.reconciler.rules.target import Wish

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)
CONFIG = Config()
MINUTE = timedelta(minutes=1)

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
    unique_by=lambda prebuild: prebuild.workspace_id,
)
policies = st.builds(
    Policy,
    is_active=st.booleans(),
    wish=st.builds(Wish, st.integers(0, 6)),
    ttl=st.sampled_from([None, timedelta(hours=1), timedelta(hours=3)]),
    last_invalidated_at=st.one_of(st.none(), ages),
    status=st.sampled_from(list(PresetStatus)),
    retry_requested_at=st.one_of(st.none(), ages, st.just(NOW + MINUTE)),
    max_starting=st.one_of(st.none(), st.integers(1, 3)),
    is_over_quota=st.booleans(),
)
histories = st.builds(
    History,
    failed=st.integers(0, 4),
    last_failed_at=st.one_of(st.none(), ages),
    newest_failed_rank=st.one_of(st.none(), st.integers(1, 8)),
    template_faults_in_a_row=st.integers(0, 3),
    newest_at=st.one_of(st.none(), ages),
    retry_succeeded=st.booleans(),
)
quotas = st.one_of(st.none(), st.builds(Quota, room=st.integers(-3, 20), cost=st.integers(0, 5)))


@dataclass(frozen=True)
class World:
    """All that a plan is made of."""

    policy: Policy
    pool: Sequence[Prebuild]
    history: History
    config: Config
    elsewhere: int
    """Prebuilds of the template's other presets that are starting."""
    quota: Quota | None

    def plan(self) -> Plan:
        counts = count(self.policy, self.pool, NOW)
        result = plan(
            self.policy,
            counts,
            self.history,
            NOW,
            self.config,
            template_starting=counts.starting + self.elsewhere,
            quota=self.quota,
        )
        return name_deletions(result, self.policy, self.pool, NOW)

    def done(self, result: Plan) -> World:
        """What there is when the plan has been executed, at the same moment."""
        gone, made = set(deleted(result)), created(result)
        canceled = any(isinstance(action, CancelPending) for action in result.actions)
        pool = [
            replace(each, activity=Activity.DELETING) if each.workspace_id in gone else each
            for each in self.pool
            if not (canceled and each.activity is Activity.QUEUED)
        ]
        pool += [Prebuild(WorkspaceId(UUID(int=n)), NOW, Activity.QUEUED) for n in range(made)]
        policy = replace(
            self.policy,
            status=result.status or self.policy.status,
            is_over_quota=self.policy.is_over_quota if result.is_over_quota is None else result.is_over_quota,
        )
        history = replace(self.history, newest_at=NOW) if made else self.history
        quota = self.quota and replace(self.quota, room=self.quota.room - made * self.quota.cost)
        return replace(self, policy=policy, pool=pool, history=history, quota=quota)


worlds = st.builds(
    World,
    policies,
    pools,
    histories,
    st.builds(Config, st.sampled_from([timedelta(0), MINUTE, timedelta(hours=1)]), st.integers(0, 3)),
    st.integers(0, 3),
    quotas,
)

# The same examples in every run; one that fails is printed, with the blob that reproduces it.
properties = settings(derandomize=True, print_blob=True, max_examples=500, deadline=None)


def created(result: Plan) -> int:
    return sum(action.count for action in result.actions if isinstance(action, Create))


def deleted(result: Plan) -> list[WorkspaceId]:
    return [id_ for action in result.actions if isinstance(action, Delete) for id_ in action.workspace_ids]


@given(worlds)
@properties
def test_skippable_implies_no_actions(world: World) -> None:
    if can_skip(world.policy, count(world.policy, world.pool, NOW)):
        assert world.plan().actions == ()
        assert not world.plan().has_work


@given(worlds)
@properties
def test_never_more_is_created_than_is_missing(world: World) -> None:
    result = world.plan()
    unexpired = result.state.actual - result.state.expired
    assert created(result) <= max(result.state.desired - unexpired - result.state.starting, 0)
    assert not result.was_cut


@given(worlds)
@properties
def test_no_create_goes_beyond_what_bounds_it(world: World) -> None:
    result = world.plan()
    if (made := created(result)) and world.policy.max_starting is not None:
        assert made + result.state.starting + world.elsewhere <= world.policy.max_starting
    if made and world.quota is not None:
        assert made * world.quota.cost <= world.quota.room
    if made and Block.HARD_LIMITED in result.blocks:
        assert (made, result.state.starting) == (1, 0)


@given(worlds)
@properties
def test_what_is_unexpired_and_wanted_is_never_deleted_and_the_oldest_go_first(world: World) -> None:
    result = world.plan()
    running = [each for each in world.pool if each.activity is Activity.RUNNING]
    gone = deleted(result)
    assert len(set(gone)) == len(gone)
    assert set(gone) <= {each.workspace_id for each in running}
    unexpired = [each for each in running if not is_expired(world.policy, each.created_at, NOW)]
    kept = [each for each in unexpired if each.workspace_id not in gone]
    unwanted = [each for each in unexpired if each.workspace_id in gone]
    if unwanted:
        assert len(kept) == (result.state.desired if world.policy.is_active else 0)
        assert all(
            (old.created_at, old.workspace_id) < (kept_.created_at, kept_.workspace_id)
            for old in unwanted
            for kept_ in kept
        )
    by_id = {each.workspace_id: each for each in running}
    for action in result.actions:
        if isinstance(action, Delete):
            order = [(by_id[id_].created_at, id_) for id_ in action.workspace_ids]
            assert order == sorted(order)


@given(worlds)
@properties
def test_deletes_come_before_creates_and_nothing_keeps_them_from_going_on(world: World) -> None:
    result = world.plan()
    kinds = [type(action) for action in result.actions]
    ends = [kinds.index(kind) for kind in (Create, BackOff) if kind in kinds]
    assert all(at == len(kinds) - 1 for at in ends)
    if world.policy.is_active:
        assert len(deleted(result)) == result.state.expired + result.state.extraneous
    else:
        assert len(deleted(result)) == result.state.actual


@given(worlds)
@properties
def test_planned_again_after_it_was_done_there_is_nothing_to_do(world: World) -> None:
    again = world.done(world.plan()).plan()
    assert not again.has_work
    assert all(isinstance(action, BackOff) for action in again.actions)


@given(worlds, st.randoms())
@properties
def test_the_order_in_which_prebuilds_are_read_does_not_matter(world: World, random: Random) -> None:
    shuffled = list(world.pool)
    random.shuffle(shuffled)
    assert replace(world, pool=shuffled).plan() == world.plan()


@given(worlds)
@properties
def test_an_inactive_preset_is_drained_and_nothing_else(world: World) -> None:
    result = replace(world, policy=replace(world.policy, is_active=False)).plan()
    assert created(result) == 0
    assert (result.status, result.blocks) == (None, ())
    assert result.is_over_quota is (False if world.policy.is_over_quota else None)


@given(worlds)
@properties
def test_what_is_blocked_needs_something_or_is_on_record(world: World) -> None:
    result = world.plan()
    state = result.state
    if state.desired <= state.actual - state.expired + state.starting:
        assert not {Block.BACKING_OFF, Block.MAX_STARTING, Block.OVER_QUOTA} & set(result.blocks)


@given(worlds)
@properties
def test_only_need_and_allowance_decide_who_is_over_quota(world: World) -> None:
    unhindered = replace(
        world,
        policy=replace(world.policy, status=PresetStatus.HEALTHY, max_starting=None),
        history=History(),
        elsewhere=0,
    )
    assert (Block.OVER_QUOTA in world.plan().blocks) is (Block.OVER_QUOTA in unhindered.plan().blocks)


HEALTHY = Policy(is_active=True, wish=Wish(3))
LIMITED = replace(HEALTHY, status=PresetStatus.HARD_LIMITED)
FAULTS = History(failed=3, last_failed_at=NOW - MINUTE, template_faults_in_a_row=3, newest_at=NOW - MINUTE)
"""Three faults of the template, the last a minute ago: two more minutes of backoff."""


def test_too_many_starting_of_the_template_bound_the_creates() -> None:
    policy = Policy(is_active=True, wish=Wish(5), max_starting=4)
    result = plan(policy, Counts(), History(), NOW, CONFIG, template_starting=3)
    assert (result.actions, result.blocks) == ((Create(1),), (Block.MAX_STARTING,))
    full = plan(policy, Counts(), History(), NOW, CONFIG, template_starting=5)
    assert (full.actions, full.blocks) == ((), (Block.MAX_STARTING,))


def test_counts_that_contradict_each_other_create_no_more_than_desired() -> None:
    result = plan(HEALTHY, Counts(running=0, expired=2), History(), NOW, CONFIG)
    assert created(result) == 3
    assert result.was_cut


def test_too_many_faults_of_the_template_stop_creates_and_not_deletes() -> None:
    policy = replace(HEALTHY, ttl=timedelta(hours=1))
    result = plan(policy, Counts(running=1, expired=1), FAULTS, NOW, CONFIG)
    assert result.status is PresetStatus.HARD_LIMITED
    assert result.blocks == (Block.HARD_LIMITED,)
    assert result.actions == (Delete(DeleteReason.EXPIRED, 1),)


def test_a_status_to_be_set_is_work_though_nothing_is_missing() -> None:
    result = plan(replace(HEALTHY, wish=Wish(0)), Counts(), FAULTS, NOW, CONFIG)
    assert (result.actions, result.has_work) == ((), True)
    assert not plan(replace(LIMITED, wish=Wish(0)), Counts(), FAULTS, NOW, CONFIG).has_work


def test_fewer_faults_than_the_limit_only_back_off() -> None:
    result = plan(HEALTHY, Counts(), replace(FAULTS, failed=2, template_faults_in_a_row=2), NOW, CONFIG)
    assert (result.status, result.actions) == (None, (BackOff(NOW + MINUTE, 2),))


def test_a_limit_of_zero_is_off() -> None:
    result = plan(HEALTHY, Counts(), History(template_faults_in_a_row=9), NOW, Config(hard_limit=0))
    assert (result.status, result.actions) == (None, (Create(3),))


def test_a_limit_that_is_turned_off_heals_whom_it_had_stopped() -> None:
    result = plan(LIMITED, Counts(), History(template_faults_in_a_row=9), NOW, Config(hard_limit=0))
    assert (result.status, result.blocks, result.actions) == (PresetStatus.HEALTHY, (), (Create(3),))
    full = plan(replace(LIMITED, wish=Wish(0)), Counts(), History(), NOW, Config(hard_limit=0))
    assert (full.status, full.has_work) == (PresetStatus.HEALTHY, True)


def test_a_full_pool_backs_off_without_being_blocked() -> None:
    history = History(failed=1, last_failed_at=NOW, newest_failed_rank=1)
    full = plan(HEALTHY, Counts(running=3), history, NOW, CONFIG)
    assert (full.actions, full.blocks) == ((BackOff(NOW + MINUTE, 1),), ())
    assert plan(HEALTHY, Counts(running=2), history, NOW, CONFIG).blocks == (Block.BACKING_OFF,)


@pytest.mark.parametrize(
    "policy, history, starting, blocks",
    [
        (HEALTHY, replace(FAULTS, template_faults_in_a_row=0), 0, (Block.BACKING_OFF, Block.OVER_QUOTA)),
        (LIMITED, FAULTS, 0, (Block.HARD_LIMITED, Block.OVER_QUOTA)),
        (replace(HEALTHY, max_starting=1), History(), 1, (Block.MAX_STARTING, Block.OVER_QUOTA)),
    ],
)
def test_what_else_stops_a_pool_does_not_take_it_off_the_record_of_who_is_over_quota(
    policy: Policy, history: History, starting: int, blocks: Sequence[Block]
) -> None:
    known = replace(policy, is_over_quota=True)
    quota = Quota(room=4, cost=5)
    result = plan(known, Counts(), history, NOW, CONFIG, template_starting=starting, quota=quota)
    assert (created(result), result.blocks, result.is_over_quota) == (0, blocks, None)


def test_an_inactive_preset_is_taken_off_the_record_of_who_is_over_quota() -> None:
    inactive = replace(HEALTHY, is_active=False)
    known = replace(inactive, is_over_quota=True)
    assert not can_skip(known, Counts())
    result = plan(known, Counts(), History(), NOW, CONFIG, quota=Quota(room=0, cost=5))
    assert (result.actions, result.is_over_quota, result.has_work) == ((), False, True)
    assert can_skip(inactive, Counts())


def test_a_retry_lets_one_through_in_spite_of_the_backoff_and_then_no_more() -> None:
    asked = replace(LIMITED, retry_requested_at=NOW)
    through = plan(asked, Counts(), FAULTS, NOW, CONFIG)
    assert (through.actions, through.status) == ((Create(1, CreateReason.RETRY),), None)
    assert plan(asked, Counts(starting=1), FAULTS, NOW, CONFIG).actions == ()
    failed_again = replace(FAULTS, failed=4, newest_at=NOW + MINUTE, last_failed_at=NOW + MINUTE)
    result = plan(asked, Counts(), failed_again, NOW + MINUTE, CONFIG)
    assert (result.actions, result.status, result.has_work) == ((), None, False)


@pytest.mark.parametrize("desired, running, made", [(0, 0, 0), (2, 2, 0), (2, 1, 1), (2, 0, 1)])
def test_a_retry_lets_no_more_through_than_is_missing(desired: int, running: int, made: int) -> None:
    asked = replace(LIMITED, wish=Wish(desired), retry_requested_at=NOW)
    assert created(plan(asked, Counts(running=running), FAULTS, NOW, CONFIG)) == made


def test_a_retry_asked_for_after_the_transaction_began_is_for_the_next_pass() -> None:
    asked = replace(LIMITED, retry_requested_at=NOW + timedelta(microseconds=1))
    assert plan(asked, Counts(), FAULTS, NOW, CONFIG).actions == ()


def test_a_retry_that_the_infrastructure_failed_is_still_open_but_waited_with() -> None:
    asked = replace(LIMITED, retry_requested_at=NOW - 2 * MINUTE)
    # Its own start failed a minute ago, and says nothing of the template: the newest that does is older.
    history = replace(FAULTS, failed=1, newest_at=NOW - 10 * MINUTE)
    result = plan(asked, Counts(), history, NOW, CONFIG)
    assert (result.actions, result.blocks) == ((BackOff(NOW, 1),), (Block.HARD_LIMITED, Block.BACKING_OFF))
    later = plan(asked, Counts(), history, NOW + MINUTE, CONFIG)
    assert later.actions == (Create(1, CreateReason.RETRY),)


def test_a_retry_that_came_up_makes_the_preset_healthy_and_fills_the_pool_in_the_same_pass() -> None:
    asked = replace(LIMITED, retry_requested_at=NOW - MINUTE)
    succeeded = History(retry_succeeded=True, newest_at=NOW)
    result = plan(asked, Counts(running=1), succeeded, NOW, CONFIG)
    assert (result.status, result.actions) == (PresetStatus.HEALTHY, (Create(2),))


def test_only_a_retry_heals_a_hard_limited_preset() -> None:
    forgotten = plan(LIMITED, Counts(), History(), NOW, CONFIG)
    assert (forgotten.status, forgotten.actions) == (None, ())


def test_an_invalid_preset_creates_nothing_and_stays_so() -> None:
    invalid = replace(HEALTHY, status=PresetStatus.VALIDATION_FAILED, retry_requested_at=NOW)
    result = plan(invalid, Counts(running=5), replace(FAULTS, retry_succeeded=True), NOW, CONFIG)
    assert (result.status, result.blocks) == (None, (Block.VALIDATION_FAILED,))
    assert result.actions == (Delete(DeleteReason.EXTRANEOUS, 2),)


def test_as_many_as_the_allowance_has_room_for_are_made() -> None:
    result = plan(HEALTHY, Counts(), History(), NOW, CONFIG, quota=Quota(room=11, cost=5))
    assert (result.actions, result.blocks, result.is_over_quota) == ((Create(2),), (Block.OVER_QUOTA,), True)
    known = plan(replace(HEALTHY, is_over_quota=True), Counts(), History(), NOW, CONFIG, quota=Quota(room=1, cost=5))
    assert (known.actions, known.blocks, known.has_work) == ((), (Block.OVER_QUOTA,), False)


@pytest.mark.parametrize("quota", [None, Quota(room=15, cost=5), Quota(room=0, cost=0)])
def test_who_is_no_longer_over_quota_is_filled_and_said_to_be(quota: Quota | None) -> None:
    result = plan(replace(HEALTHY, is_over_quota=True), Counts(), History(), NOW, CONFIG, quota=quota)
    assert (result.actions, result.blocks, result.is_over_quota) == ((Create(3),), (), False)


def test_who_wants_nothing_more_is_not_over_quota() -> None:
    full = replace(HEALTHY, is_over_quota=True)
    assert plan(full, Counts(running=3), History(), NOW, CONFIG, quota=Quota(-5, 1)).is_over_quota is False


def test_prebuilds_whose_cost_is_not_known_need_no_room_but_stop_where_there_is_less_than_none() -> None:
    assert Quota(room=0, cost=0).admits(9) == 9
    assert Quota(room=-1, cost=0).admits(9) == 0


def test_failures_behind_enough_newer_starts_count_no_more() -> None:
    policy = Policy(is_active=True, wish=Wish(2))
    counts = Counts(running=1)
    history = History(failed=1, last_failed_at=NOW, newest_failed_rank=2)
    assert not plan(policy, counts, history, NOW, CONFIG).has_work
    assert plan(policy, counts, replace(history, newest_failed_rank=3), NOW, CONFIG).actions == (Create(1),)


def test_parked_failed_and_canceled_prebuilds_are_left_alone() -> None:
    idle = [Activity.STOPPED, Activity.FAILED, Activity.CANCELED, Activity.CANCELING]
    pool = [Prebuild(WorkspaceId(UUID(int=n)), NOW - 10 * MINUTE, each) for n, each in enumerate(idle)]
    for policy in (HEALTHY, replace(HEALTHY, is_active=False), replace(HEALTHY, last_invalidated_at=NOW)):
        result = World(policy, pool, History(), CONFIG, 0, None).plan()
        assert deleted(result) == []
        assert created(result) == (3 if policy.is_active else 0)
