"""A pool in words: its target, where that comes from, what comes next, and what is in the way."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from prebuilds.cli.finding import pool_name
from prebuilds.cli.moments import clock_text, span, time_of, zone_of
from prebuilds.cli.output import Cell, printable, word
from prebuilds.v1 import pool_pb2, template_pb2

_REASONS: Final = {
    pool_pb2.ACTION_REASON_BELOW_TARGET: "below the target",
    pool_pb2.ACTION_REASON_EXPIRED: "expired",
    pool_pb2.ACTION_REASON_EXTRANEOUS: "more than the target",
    pool_pb2.ACTION_REASON_INACTIVE: "not active",
}
_STATES: Final = {"full": "green", "filling": "yellow", "shrinking": "yellow", "draining": "yellow", "off": "dim"}
_GRAVE: Final = frozenset({pool_pb2.BLOCK_KIND_HARD_LIMITED, pool_pb2.BLOCK_KIND_VALIDATION_FAILED})
_MAX_LINES: Final = 20  # of a build's error


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pool is the pool of."""

    preset: template_pb2.Preset
    template: template_pb2.Template


def state_word(pool: pool_pb2.Pool) -> str:
    """How the pool is, in a word or two: `full`, `filling`, what blocks it, ..."""
    counts = pool.counts
    if pool.blocked_by:
        return ", ".join(dict.fromkeys(map(block_word, pool.blocked_by)))
    if not pool.active:
        return "draining" if counts.actual or counts.starting or counts.deleting else "off"
    if counts.eligible < pool.target.instances:
        return "filling"
    return "shrinking" if counts.extraneous else "full"


def state_cell(pool: pool_pb2.Pool) -> Text:
    """That word in its colour."""
    state = state_word(pool)
    blocked = "red" if any(block.kind in _GRAVE for block in pool.blocked_by) else "yellow"
    return Text(state, style=_STATES.get(state, blocked))


def block_word(block: pool_pb2.PoolBlock) -> str:
    """What a block is called."""
    return word(pool_pb2.BlockKind, block.kind, "BLOCK_KIND_").replace("_", " ")


def explain(pool: pool_pb2.Pool, around: Surroundings, *, can_skip: bool = False) -> dict[str, Cell]:
    """Everything about a pool, a line or a few each; times are those of the pool's zone, or UTC."""
    policy = around.preset.prebuilds
    zone = zone_of(policy.timezone)
    now = time_of(pool.snapshot_time)
    facts: dict[str, Cell] = {
        "pool": f"{pool_name(pool)} {pool.version_name}, {'active' if pool.active else 'not active'}",
        "state": state_cell(pool),
        "blocked by": "\n".join(describe_block(block, zone, now) for block in pool.blocked_by),
        "ends with": "\n".join(_remedy(block, pool, around.template) for block in pool.blocked_by),
        "error": pool.error,
        "target": _target(pool.target, around),
        "next change": _next_change(pool.target, zone, now),
        "prebuilds": _counts(pool.counts),
        "waiting": _of(pool.counts.waiting, "person", "people") if pool.counts.waiting else "",
        "next pass": _plan(pool, zone, now, can_skip=can_skip),
        "expire after": span(policy.ttl.ToTimedelta()) if policy.ttl.ToTimedelta() else "",
        "invalidated": _when_set(around.preset.last_invalidated_time, zone, now),
        "retried": _when_set(around.preset.retry_requested_time, zone, now),
        "id": pool.id,
        "as of": clock_text(now, zone, seconds=True),
    }
    return {name: value for name, value in facts.items() if value}


def describe_block(block: pool_pb2.PoolBlock, zone: ZoneInfo, now: datetime) -> str:
    """What is in the way, since when and until when, with the error or the words of who paused below it."""
    told = block_word(block)
    if block.kind == pool_pb2.BLOCK_KIND_PAUSED:
        told += f" ({word(pool_pb2.PauseScope, block.pause.scope, 'PAUSE_SCOPE_')})"
        told += f" by {block.pause.creator_name}" if block.pause.creator_name else ""
    if block.HasField("since_time"):
        told += f" since {_when(time_of(block.since_time), zone, now)}"
    if block.HasField("until_time"):
        told += f" until {_when(time_of(block.until_time), zone, now)}"
    said = printable(block.detail or block.pause.message).strip().splitlines()
    return "\n".join([told, *(f"  {line}" for line in said[-_MAX_LINES:])])


def describe_action(action: pool_pb2.Action, zone: ZoneInfo, now: datetime) -> str:
    """What would be done, and why."""
    why = _REASONS.get(action.reason, "")
    match action.WhichOneof("kind"):
        case "create":
            return f"create {action.create.count}: {why}"
        case "delete":
            return f"delete {len(action.delete.workspace_ids)}: {why}"
        case "cancel_pending":
            return f"cancel {action.cancel_pending.count} that no daemon has taken: {why}"
        case "back_off":
            failures = _of(action.back_off.failure_count, "build", "builds")
            return f"create none until {_when(time_of(action.back_off.until_time), zone, now)}: {failures} failed"
        case None:
            return "something that this client does not know"


def _remedy(block: pool_pb2.PoolBlock, pool: pool_pb2.Pool, template: template_pb2.Template) -> str:
    match block.kind:
        case pool_pb2.BLOCK_KIND_HARD_LIMITED:
            return f"a new version, or `prebuilds pools retry {shlex.quote(pool_name(pool))}`"
        case pool_pb2.BLOCK_KIND_VALIDATION_FAILED:
            return "a new version"
        case pool_pb2.BLOCK_KIND_OVER_QUOTA:
            return "a larger allowance of the group `prebuilds`, or fewer prebuilds in the organization"
        case pool_pb2.BLOCK_KIND_PAUSED:
            return f"`prebuilds pools resume {_reached(block.pause, pool, template)}`"
        case _:
            return "time"


def _reached(pause: pool_pb2.Pause, pool: pool_pb2.Pool, template: template_pb2.Template) -> str:
    """What a pause reaches, as `pools resume` takes it: a name alone means what is active and not deleted."""
    match pause.scope:
        case pool_pb2.PAUSE_SCOPE_DEPLOYMENT:
            return "--deployment"
        case pool_pb2.PAUSE_SCOPE_TEMPLATE:
            return f"--template {pool.template_id}" if template.deleted else pool.template_name
        case _ if template.deleted:
            return pool.id
        case _:
            name = shlex.quote(pool_name(pool))
            return name if pool.active else f"{name} -V {shlex.quote(pool.version_name)}"


def _target(target: pool_pb2.PoolTarget, around: Surroundings) -> str:
    policy, template = around.preset.prebuilds, around.template
    match target.source:
        case pool_pb2.TARGET_SOURCE_SCHEDULE:
            known = target.schedule_index < len(policy.schedules)
            cron = policy.schedules[target.schedule_index].cron if known else "?"
            why = f"by schedule `{cron}` in {policy.timezone}"
        case pool_pb2.TARGET_SOURCE_INSTANCES:
            why = "by the preset's instances" + (", no schedule holds" if policy.schedules else "")
        case pool_pb2.TARGET_SOURCE_INACTIVE if template.deleted:
            why = "because the template is deleted"
        case pool_pb2.TARGET_SOURCE_INACTIVE if template.deprecation_message:
            why = f"because the template is deprecated: {template.deprecation_message}"
        case pool_pb2.TARGET_SOURCE_INACTIVE:
            why = f"because {template.active_version_name or 'no version'} is active"
        case _:
            why = "for a reason that this client does not know"
    return f"{target.instances}, {why}"


def _next_change(target: pool_pb2.PoolTarget, zone: ZoneInfo, now: datetime) -> str:
    if not target.HasField("next_change_time"):
        return "none by itself"
    at = time_of(target.next_change_time)
    return f"to {target.next_instances} at {clock_text(at, zone)}, in {span(at - now)}"


def _counts(counts: pool_pb2.PoolCounts) -> str:
    running = [f"{counts.eligible} eligible"] if counts.actual else []
    running += [f"{counts.expired} expired"] if counts.expired else []
    running += [f"{counts.extraneous} more than the target"] if counts.extraneous else []
    others = (
        (counts.starting, "starting"),
        (counts.stopping, "stopping"),
        (counts.deleting, "deleting"),
        (counts.parked, "stopped"),
        (counts.failed, "failed, kept for inspection"),
    )
    told = f"{counts.actual} running" + (f" ({', '.join(running)})" if running else "")
    return ", ".join([told, *(f"{number} {what}" for number, what in others if number)])


def _plan(pool: pool_pb2.Pool, zone: ZoneInfo, now: datetime, *, can_skip: bool) -> str:
    if any(block.kind == pool_pb2.BLOCK_KIND_PAUSED for block in pool.blocked_by):
        would = "; ".join(describe_action(action, zone, now) for action in pool.plan)
        return "nothing, because it is paused" + (f"; else: {would}" if would else "")
    if can_skip:
        return "nothing, it is skipped before any work"
    return "\n".join(describe_action(action, zone, now) for action in pool.plan) or "nothing"


def _when_set(moment: Timestamp, zone: ZoneInfo, now: datetime) -> str:
    return _when(time_of(moment), zone, now) if moment.ByteSize() else ""


def _when(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A moment beside now: the time alone where it is today, and how far away it is."""
    local, today = moment.astimezone(zone), now.astimezone(zone)
    shown = f"{local:%H:%M:%S}" if local.date() == today.date() else clock_text(moment, zone, seconds=True)
    return f"{shown} (in {span(moment - now)})" if moment > now else f"{shown} ({span(now - moment)} ago)"


def _of(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
