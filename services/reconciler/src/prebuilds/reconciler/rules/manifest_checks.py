"""All problems of a manifest at once: those of single fields, and those of fields together.

A field that is wrong by itself must not hide what is wrong elsewhere, so the checks across fields look at whatever
parts are good by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.parameters import (
    MAX_PARAMETERS,
    Matcher,
    Parameter,
    ParameterType,
    PatternError,
    ValueRules,
    value_problem,
)
from prebuilds.domain.refusals import Violation
from prebuilds.reconciler.rules.cron import parse_range
from prebuilds.reconciler.rules.manifest import (
    MAX_AGENTS,
    MAX_PRESETS,
    MAX_SCHEDULES,
    Manifest,
    ParameterSpec,
    ProcessSpec,
    ScheduleSpec,
    TerraformSpec,
)
from prebuilds.reconciler.rules.schedule import overlapping

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_TEXTS: Final = TypeAdapter(dict[str, str])
_BLOCKS: Final = {BackendKind.PROCESS: "process", BackendKind.TERRAFORM: "terraform"}
_NO_MAPPING: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
MAX_VIOLATIONS: Final = 200


def check_manifest(data: object, matches: Matcher) -> Manifest | tuple[Violation, ...]:
    """Give the manifest with its defaults filled in, or everything that is wrong with it, in the file's order.

    `matches` does the regular expressions of parameters. Lists that are too long are looked at as far as they may go.
    """
    problems: list[Violation] = []
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        problems.extend(_violations(error))
    if isinstance(data, dict):
        problems.extend(_across(cast("dict[object, object]", data), matches))
    if manifest is None or problems:
        return tuple(_without_repetitions(problems))[:MAX_VIOLATIONS]
    return _with_backend_block(manifest)


def _with_backend_block(manifest: Manifest) -> Manifest:
    match manifest.backend:
        case BackendKind.PROCESS:
            return manifest.model_copy(update={"process": manifest.process or ProcessSpec()})
        case BackendKind.TERRAFORM:
            return manifest.model_copy(update={"terraform": manifest.terraform or TerraformSpec()})


def _violations(error: ValidationError) -> Iterator[Violation]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "is not known"
        elif problem["type"] == "missing":
            message = "is required"
        elif problem["type"] == "string_type":
            message = "must be text; write it in quotes"
        elif problem["type"] in _NO_MAPPING:
            message = "must be a mapping" if problem["loc"] else "must be a mapping with name and backend"
        yield Violation(_path(problem["loc"]), message)


def _path(location: Sequence[int | str]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path or "template.yaml"


def _without_repetitions(problems: Iterable[Violation]) -> Iterator[Violation]:
    return iter(dict.fromkeys(problems))


def _across(data: dict[object, object], matches: Matcher) -> Iterator[Violation]:
    raw_parameters = _items(data.get("parameters"), MAX_PARAMETERS)
    specs = _good(ParameterSpec, raw_parameters)
    presets = _items(data.get("presets"), MAX_PRESETS)
    yield from _repeated("agents", _items(data.get("agents"), MAX_AGENTS))
    yield from _repeated("parameters", _names(raw_parameters))
    parameters: dict[str, Parameter] = {}
    for index, spec in specs:
        problem = _rules_problem(f"parameters[{index}].validation", spec, matches)
        if problem is not None:
            yield problem
        # Values are not held to rules that are wrong.
        parameter = spec.parameter() if problem is None else replace(spec.parameter(), rules=ValueRules())
        yield from _check_parameter(f"parameters[{index}]", parameter, matches)
        parameters[spec.name] = parameter
    yield from _repeated("presets", _names(presets))
    defaults = [index for index, raw in enumerate(presets) if _get(raw, "default") is True]
    for index in defaults[1:]:
        yield Violation(f"presets[{index}].default", f"presets[{defaults[0]}] is the default already")
    # A parameter that is wrong by itself is declared all the same.
    declared = {name for name in _names(raw_parameters) if isinstance(name, str)}
    for index, raw in enumerate(presets):
        yield from _check_preset(f"presets[{index}]", raw, parameters, declared, matches)
    yield from _check_backend(data)


def _check_backend(data: Mapping[object, object]) -> Iterator[Violation]:
    backend = data.get("backend")
    if not isinstance(backend, str) or backend not in _BLOCKS:
        return
    for kind, block in _BLOCKS.items():
        if backend != kind and block in data:
            yield Violation(block, f"is only for the backend {kind}")


def _rules_problem(path: str, spec: ParameterSpec, matches: Matcher) -> Violation | None:
    """The first thing that is wrong with the rules for a parameter's values."""
    rules = spec.validation
    if rules is None:
        return None
    if rules.regex and spec.type is not ParameterType.STRING:
        return Violation(f"{path}.regex", "is for text only")
    if spec.type is not ParameterType.NUMBER and (rules.min is not None or rules.max is not None):
        return Violation(path, "min and max are for numbers only")
    if rules.min is not None and rules.max is not None and rules.max < rules.min:
        return Violation(f"{path}.max", "must not be below min")
    try:
        matches(rules.regex, "")
    except PatternError as error:
        return Violation(f"{path}.regex", str(error))
    return None


def _check_parameter(path: str, parameter: Parameter, matches: Matcher) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, option in enumerate(parameter.options):
        if (problem := value_problem(parameter, option, matches)) is not None:
            yield Violation(f"{path}.options[{index}]", problem)
        if option in seen:
            yield Violation(f"{path}.options[{index}]", f"{option!r} is there twice")
        seen.add(option)
    if parameter.default is not None and (problem := value_problem(parameter, parameter.default, matches)) is not None:
        yield Violation(f"{path}.default", problem)


def _check_preset(
    path: str, raw: object, parameters: Mapping[str, Parameter], declared: set[str], matches: Matcher
) -> Iterator[Violation]:
    given = _valid(_TEXTS, _get(raw, "parameters") or {})
    if given is not None:
        for name, value in given.items():
            spec = parameters.get(name)
            if name not in declared:
                yield Violation(f"{path}.parameters.{name}", "the version has no such parameter")
            elif spec is not None and (problem := value_problem(spec, value, matches)) is not None:
                yield Violation(f"{path}.parameters.{name}", problem)
    if not isinstance(_get(raw, "prebuilds"), dict):
        return
    named = _get(raw, "parameters")
    names: set[object] = set(cast("dict[object, object]", named)) if isinstance(named, dict) else set()
    for name, spec in parameters.items():
        if spec.default is None and name not in names:
            yield Violation(f"{path}.parameters.{name}", "is required: a preset with prebuilds must give it a value")
    yield from _check_schedules(f"{path}.prebuilds.scheduling.schedule", _get(_get(raw, "prebuilds"), "scheduling"))


def _check_schedules(path: str, scheduling: object) -> Iterator[Violation]:
    """What is wrong with schedules that can be read: this is asked at a push only, what is stored is followed."""
    good = _good(ScheduleSpec, _items(_get(scheduling, "schedule"), MAX_SCHEDULES))
    crons = [parse_range(spec.cron) for _, spec in good]
    for (index, _), cron in zip(good, crons, strict=True):
        if not cron.dates():
            yield Violation(f"{path}[{index}].cron", "never holds: no month that it names has such a day")
    for first, second in overlapping(crons):
        yield Violation(f"{path}[{good[second][0]}].cron", f"overlaps with schedule[{good[first][0]}]")


def _repeated(path: str, names: Sequence[object]) -> Iterator[Violation]:
    """Name the positions whose name another position has before them."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if isinstance(name, str):
            if name in seen:
                yield Violation(f"{path}[{index}]", f"{name!r} is there twice")
            seen.add(name)


def _names(raws: Sequence[object]) -> list[object]:
    return [_get(raw, "name") for raw in raws]


def _items(raw: object, most: int) -> list[object]:
    return cast("list[object]", raw)[:most] if isinstance(raw, list) else []


def _get(raw: object, key: str) -> object:
    return cast("dict[object, object]", raw).get(key) if isinstance(raw, dict) else None


def _good(model: type[M], raws: Sequence[object]) -> list[tuple[int, M]]:
    """Give the items that are good by themselves, with their positions."""
    adapter = TypeAdapter(model)
    found = ((index, _valid(adapter, raw)) for index, raw in enumerate(raws))
    return [(index, value) for index, value in found if value is not None]


def _valid(adapter: TypeAdapter[T], raw: object) -> T | None:
    try:
        return adapter.validate_python(raw)
    except ValidationError:
        return None
