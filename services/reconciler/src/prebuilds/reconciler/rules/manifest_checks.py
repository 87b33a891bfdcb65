"""All problems of a manifest at once: those of single fields, and those of fields together.

A field that is wrong by itself must not hide what is wrong elsewhere, so the checks across fields look at whatever
parts are good by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.refusals import Violation
from prebuilds.reconciler.rules.cron import parse_range
from prebuilds.reconciler.rules.manifest import Manifest, ParameterSpec, ProcessSpec, ScheduleSpec, TerraformSpec
from prebuilds.reconciler.rules.parameters import ParameterType, problem_with
from prebuilds.reconciler.rules.schedule import overlapping

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_TEXTS: Final = TypeAdapter(dict[str, str])
_BLOCKS: Final = {BackendKind.PROCESS: "process", BackendKind.TERRAFORM: "terraform"}
MAX_VIOLATIONS: Final = 200


def check_manifest(data: object) -> Manifest | tuple[Violation, ...]:
    """Give the manifest with its defaults filled in, or everything that is wrong with it, in the file's order."""
    problems: list[Violation] = []
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        problems.extend(_violations(error))
    if isinstance(data, dict):
        problems.extend(_across(cast("dict[object, object]", data)))
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


def _across(data: dict[object, object]) -> Iterator[Violation]:
    raw_parameters = _items(data.get("parameters"))
    parameters = {spec.name: spec for _, spec in _good(ParameterSpec, raw_parameters)}
    presets = _items(data.get("presets"))
    yield from _repeated("agents", _items(data.get("agents")))
    yield from _repeated("parameters", _names(raw_parameters))
    for index, spec in _good(ParameterSpec, raw_parameters):
        yield from _check_parameter(f"parameters[{index}]", spec)
    yield from _repeated("presets", _names(presets))
    defaults = [index for index, raw in enumerate(presets) if _get(raw, "default") is True]
    for index in defaults[1:]:
        yield Violation(f"presets[{index}].default", f"presets[{defaults[0]}] is the default already")
    # A parameter that is wrong by itself is declared all the same.
    declared = {name for name in _names(raw_parameters) if isinstance(name, str)}
    for index, raw in enumerate(presets):
        yield from _check_preset(f"presets[{index}]", raw, parameters, declared)
    yield from _check_backend(data)


def _check_backend(data: Mapping[object, object]) -> Iterator[Violation]:
    for kind, block in _BLOCKS.items():
        if data.get("backend") in _BLOCKS and data.get("backend") != kind and block in data:
            yield Violation(block, f"is only for the backend {kind}")


def _check_parameter(path: str, spec: ParameterSpec) -> Iterator[Violation]:
    rules = spec.validation
    if rules is not None:
        if rules.regex and spec.type is not ParameterType.STRING:
            yield Violation(f"{path}.validation.regex", "is for text only")
        if spec.type is not ParameterType.NUMBER and (rules.min is not None or rules.max is not None):
            yield Violation(f"{path}.validation", "min and max are for numbers only")
            return
        if rules.min is not None and rules.max is not None and rules.max < rules.min:
            yield Violation(f"{path}.validation.max", "must not be below min")
    for index, option in enumerate(spec.options):
        if (problem := _problem(spec, option)) is not None:
            yield Violation(f"{path}.options[{index}]", problem)
        if option in spec.options[:index]:
            yield Violation(f"{path}.options[{index}]", f"{option!r} is there twice")
    if spec.default is not None and (problem := _problem(spec, spec.default)) is not None:
        yield Violation(f"{path}.default", problem)


def _check_preset(
    path: str, raw: object, parameters: Mapping[str, ParameterSpec], declared: set[str]
) -> Iterator[Violation]:
    given = _valid(_TEXTS, _get(raw, "parameters") or {})
    if given is not None:
        for name, value in given.items():
            spec = parameters.get(name)
            if name not in declared:
                yield Violation(f"{path}.parameters.{name}", "the version has no such parameter")
            elif spec is not None and (problem := _problem(spec, value)) is not None:
                yield Violation(f"{path}.parameters.{name}", problem)
    if not isinstance(_get(raw, "prebuilds"), dict):
        return
    named = _get(raw, "parameters")
    names: set[object] = set(cast("dict[object, object]", named)) if isinstance(named, dict) else set()
    for name, spec in parameters.items():
        if spec.default is None and name not in names:
            yield Violation(f"{path}.parameters.{name}", "is required: a preset with prebuilds must give it a value")
    yield from _check_overlaps(f"{path}.prebuilds.scheduling.schedule", _get(_get(raw, "prebuilds"), "scheduling"))


def _check_overlaps(path: str, scheduling: object) -> Iterator[Violation]:
    good = _good(ScheduleSpec, _items(_get(scheduling, "schedule")))
    pairs = overlapping([parse_range(spec.cron) for _, spec in good])
    for first, second in pairs:
        yield Violation(f"{path}[{good[second][0]}].cron", f"overlaps with schedule[{good[first][0]}]")


def _problem(spec: ParameterSpec, value: str) -> str | None:
    rules = spec.validation
    numbers = rules is not None and spec.type is ParameterType.NUMBER
    return problem_with(
        value,
        spec.type,
        options=spec.options,
        regex=rules.regex if rules is not None else "",
        least=rules.min if rules is not None and numbers else None,
        most=rules.max if rules is not None and numbers else None,
        error=rules.error if rules is not None else "",
    )


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


def _items(raw: object) -> list[object]:
    return cast("list[object]", raw) if isinstance(raw, list) else []


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
