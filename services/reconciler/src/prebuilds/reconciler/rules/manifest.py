"""The manifest of a template version (behaviour section 1): its shape, and what each field alone must satisfy.

What fields must satisfy together is in `manifest_checks`, which also gathers all problems.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.cron import autostart_problem
from prebuilds.domain.durations import LONGEST, written
from prebuilds.domain.names import is_id, is_name
from prebuilds.domain.parameters import MAX_PARAMETERS, MAX_VALUE, Parameter, ParameterType, ValueRules
from prebuilds.reconciler.rules.cron import parse_range
from prebuilds.reconciler.rules.durations import parse_duration
from prebuilds.reconciler.rules.schedule import find_zone

MAX_DESCRIPTION: Final = 128
MAX_ITEM_NAME: Final = 64
MAX_INSTANCES: Final = 10_000
MAX_PRESETS: Final = 200
MAX_SCHEDULES: Final = 50
"""Of a preset."""
MAX_OPTIONS: Final = 500
"""Of a parameter."""
MAX_AGENTS: Final = 20
MAX_VARIABLES: Final = 200
"""Of the environment of agents."""
MAX_BOUND: Final = 1e15
"""A number has at most 15 digits before its point."""
MAX_REGEX: Final = 1000
"""Characters."""
MIN_PREBUILD_TTL: Final = 3600
MAX_PREBUILD_TTL: Final = 31_536_000

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("must be 1 to 63 lower-case letters and digits, words joined by single hyphens")
    return text


def _cron(text: str) -> str:
    parse_range(text)
    return text


def _zone(text: str) -> str:
    find_zone(text)
    return text


def check_autostart(text: str) -> str:
    """Give the schedule of an autostart; ValueError where it is none. Empty: never."""
    problem = autostart_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return text


def _duration(least: timedelta, most: timedelta = LONGEST) -> AfterValidator:
    def check(text: str) -> str:
        length = parse_duration(text)
        if length and length < least:
            raise ValueError(f"must be 0s or at least {written(least)}")
        if length > most:
            raise ValueError(f"must be at most {written(most)}")
        return text

    return AfterValidator(check)


def _prebuild_ttl(seconds: int) -> int:
    if seconds != 0 and not MIN_PREBUILD_TTL <= seconds <= MAX_PREBUILD_TTL:
        raise ValueError(f"must be 0 (never) or {MIN_PREBUILD_TTL} to {MAX_PREBUILD_TTL} seconds")
    return seconds


def _variable(text: str) -> str:
    if _VARIABLE.fullmatch(text) is None:
        raise ValueError("must be a name of letters, digits and underscores")
    return text


def _no_control(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must have no control characters, and no white space at its ends")
    return text


def _preset_name(text: str) -> str:
    # Requests name a preset by its name or its id.
    if is_id(text):
        raise ValueError("must not look like a UUID")
    return text


Text = Annotated[str, AfterValidator(_no_control)]
Value = Annotated[str, Field(max_length=MAX_VALUE), AfterValidator(_no_control)]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION), AfterValidator(_no_control)]
ItemName = Annotated[str, Field(min_length=1, max_length=MAX_ITEM_NAME), AfterValidator(_label)]
Bound = Annotated[float, Field(ge=-MAX_BOUND, le=MAX_BOUND, allow_inf_nan=False)]
Instances = Annotated[int, Field(ge=0, le=MAX_INSTANCES)]


class _Part(BaseModel):
    # Strict: a manifest says "3" or 3 and means different things. Unknown keys are errors.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ParameterRules(_Part):
    """Further rules for the values of a parameter; all that are given must hold."""

    regex: Annotated[str, Field(max_length=MAX_REGEX), AfterValidator(_no_control)] = ""
    min: Bound | None = None
    max: Bound | None = None
    error: Description = ""


class ParameterSpec(_Part):
    """A named input."""

    name: ItemName
    type: Annotated[ParameterType, Field(strict=False)] = ParameterType.STRING
    description: Description = ""
    default: Value | None = None
    """Null: a value is required."""
    mutable: bool = False
    options: Annotated[list[Value], Field(max_length=MAX_OPTIONS)] = Field(default_factory=list)
    validation: ParameterRules | None = None

    def parameter(self) -> Parameter:
        """What its values are checked by."""
        rules = self.validation or ParameterRules()
        return Parameter(
            self.name,
            self.type,
            self.default,
            self.mutable,
            tuple(self.options),
            ValueRules(rules.regex, rules.min, rules.max, rules.error),
        )


class ScheduleSpec(_Part):
    """A range with another number of prebuilds."""

    cron: Annotated[str, AfterValidator(_cron)]
    instances: Instances


class Scheduling(_Part):
    """The schedules of a preset, in their zone."""

    timezone: Annotated[str, AfterValidator(_zone)]
    schedule: Annotated[list[ScheduleSpec], Field(max_length=MAX_SCHEDULES)] = Field(default_factory=list)


class ExpirationPolicy(_Part):
    """When prebuilds that nobody claimed are replaced."""

    ttl: Annotated[int, AfterValidator(_prebuild_ttl)] = 0
    """Seconds; 0 is never."""


class PrebuildsSpec(_Part):
    """What a preset asks for; without it there is no pool."""

    instances: Instances
    expiration_policy: ExpirationPolicy = Field(default_factory=ExpirationPolicy)
    scheduling: Scheduling | None = None


class PresetSpec(_Part):
    """Named values of parameters."""

    name: Annotated[ItemName, AfterValidator(_preset_name)]
    description: Description = ""
    default: bool = False
    parameters: Annotated[dict[str, Value], Field(max_length=MAX_PARAMETERS)] = Field(default_factory=dict)
    prebuilds: PrebuildsSpec | None = None


class Lifecycle(_Part):
    """What happens to a workspace by itself, once it is claimed or created; unset: not said here."""

    ttl: Annotated[str, _duration(timedelta(minutes=1), timedelta(days=30))] | None = None
    autostart: Annotated[str, AfterValidator(check_autostart)] | None = None
    time_til_dormant: Annotated[str, _duration(timedelta(hours=1))] | None = None
    time_til_dormant_autodelete: Annotated[str, _duration(timedelta(hours=1))] | None = None


class ProcessSpec(_Part):
    """The block of the backend `process`."""

    startup: Text = ""
    """What an agent runs at its start; empty: nothing."""
    env: Annotated[dict[Annotated[str, AfterValidator(_variable)], Text], Field(max_length=MAX_VARIABLES)] = Field(
        default_factory=dict
    )


class TerraformSpec(_Part):
    """The block of the backend `terraform`; it has nothing to say yet."""


class Manifest(_Part):
    """`template.yaml`, checked, with its defaults filled in."""

    name: Annotated[str, AfterValidator(_name)]
    description: Description = ""
    backend: Annotated[BackendKind, Field(strict=False)]
    claim_strategy: Annotated[ClaimStrategy, Field(strict=False)] = ClaimStrategy.PROVISION
    agents: Annotated[list[Annotated[str, AfterValidator(_name)]], Field(min_length=1, max_length=MAX_AGENTS)] = Field(
        default_factory=lambda: ["main"]
    )
    parameters: Annotated[list[ParameterSpec], Field(max_length=MAX_PARAMETERS)] = Field(default_factory=list)
    presets: Annotated[list[PresetSpec], Field(max_length=MAX_PRESETS)] = Field(default_factory=list)
    lifecycle: Lifecycle | None = None
    process: ProcessSpec | None = None
    terraform: TerraformSpec | None = None
