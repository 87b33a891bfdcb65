"""What presets ask for, compiled once: a version's schedules never change, and reading a cron expression is slow."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.queries.pools import PresetRow
from prebuilds.reconciler.rules.schedule import Schedule
from prebuilds.reconciler.rules.state import Policy
from prebuilds.reconciler.rules.target import Wish, compile_wish

_log = structlog.stdlib.get_logger(__name__)


class Wishes:
    """The compiled wishes of the presets that were seen."""

    def __init__(self) -> None:
        """Nothing is compiled yet."""
        self._compiled: dict[PresetId, tuple[object, Wish]] = {}

    def policy_of(self, preset: PresetRow) -> Policy:
        """What the preset says about its pool."""
        return policy_of(preset, self._wish_of(preset))

    def forget_all_but(self, preset_ids: Collection[PresetId]) -> None:
        """Forget presets that have no pool any more."""
        kept = set(preset_ids)
        self._compiled = {id_: wish for id_, wish in self._compiled.items() if id_ in kept}

    def _wish_of(self, preset: PresetRow) -> Wish:
        stored = (preset.desired_instances, preset.timezone, preset.crons, preset.schedule_instances)
        known = self._compiled.get(preset.preset_id)
        # What is stored of a preset should never change, but is cheap to compare.
        if known is not None and known[0] == stored:
            return known[1]
        wish = wish_of(preset)
        if wish.error:
            _log.error("schedules cannot be followed, instances count", preset_id=preset.preset_id, cause=wish.error)
        self._compiled[preset.preset_id] = (stored, wish)
        return wish


def policy_of(preset: PresetRow, wish: Wish) -> Policy:
    """What a preset says about its pool."""
    return Policy(
        is_active=preset.is_active,
        wish=wish,
        ttl=preset.ttl,
        last_invalidated_at=preset.last_invalidated_at,
        status=preset.status,
        retry_requested_at=preset.retry_requested_at,
        max_starting=preset.max_starting,
        is_over_quota=preset.over_quota_since is not None,
    )


def wish_of(preset: PresetRow) -> Wish:
    """Compile what a preset asks for."""
    schedules = [
        Schedule(cron, instances) for cron, instances in zip(preset.crons, preset.schedule_instances, strict=True)
    ]
    return compile_wish(preset.desired_instances, preset.timezone, schedules)
