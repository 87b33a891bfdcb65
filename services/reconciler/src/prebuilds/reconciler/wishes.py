"""What presets ask for, compiled. The rules remember what they have compiled; here is what was complained about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.queries.pools import PresetRow
from prebuilds.reconciler.queries.surveys import Situation
from prebuilds.reconciler.rules.schedule import Schedule
from prebuilds.reconciler.rules.state import Policy
from prebuilds.reconciler.rules.target import Wish, compile_wish

_log = structlog.stdlib.get_logger(__name__)


class Stored(Protocol):
    """What is stored of a preset's wish."""

    @property
    def desired_instances(self) -> int | None: ...
    @property
    def timezone(self) -> str: ...
    @property
    def crons(self) -> Sequence[str]: ...
    @property
    def schedule_instances(self) -> Sequence[int]: ...


class Wishes:
    """Compiles the wishes of presets, and says once of each what is wrong with it."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._told: dict[PresetId, str] = {}

    def policy_of(self, preset: PresetRow) -> Policy:
        """What the preset says about its pool."""
        return policy_of(preset, self._wish_of(preset, [preset.preset_id]))

    def policy_of_alike(self, situation: Situation) -> Policy:
        """What presets that are alike say, as far as it is not in the counts of their prebuilds already."""
        return Policy(
            is_active=situation.is_active,
            wish=self._wish_of(situation, situation.preset_ids),
            status=situation.status,
            retry_requested_at=situation.retry_requested_at,
            max_starting=situation.max_starting,
            is_over_quota=situation.is_over_quota,
        )

    def forget_all_but(self, preset_ids: Collection[PresetId]) -> None:
        """Forget presets that have no pool any more."""
        if self._told:
            kept = set(preset_ids)
            self._told = {id_: error for id_, error in self._told.items() if id_ in kept}

    def _wish_of(self, stored: Stored, preset_ids: Sequence[PresetId]) -> Wish:
        wish = wish_of(stored)
        if wish.error:
            for preset_id in preset_ids:
                if self._told.get(preset_id) != wish.error:
                    self._told[preset_id] = wish.error
                    _log.error("schedules cannot be followed, instances count", preset_id=preset_id, cause=wish.error)
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


def wish_of(stored: Stored) -> Wish:
    """Compile what a preset asks for."""
    schedules = list(map(Schedule, stored.crons, stored.schedule_instances))
    return compile_wish(stored.desired_instances, stored.timezone, schedules)
