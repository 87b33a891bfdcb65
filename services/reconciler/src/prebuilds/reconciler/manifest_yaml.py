"""The YAML of a manifest: plain values only, told apart from what a few lines can blow up to.

Mappings with text as keys, lists, and the scalars of YAML's core schema: text, true and false, whole and broken
numbers, null. What looks like a date, an octal number or `yes` is text.
"""

from __future__ import annotations

import re
from typing import Final, cast

import yaml

from prebuilds.domain.refusals import Reason, Refusal, Violation

MAX_DEPTH: Final = 50
"""Levels of mappings and lists in each other."""

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS: Final = {
    word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())
}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_BROKEN: Final = re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
_NO_TEXT: Final = re.compile(r"[\0\ud800-\udfff]")
"""What Postgres and Protobuf cannot hold; YAML can spell it."""


def read_yaml(text: bytes, name: str) -> object:
    """Read plain values; Refusal INVALID_MANIFEST for what is no YAML, repeats a key, or uses aliases or tags."""
    try:
        document = yaml.compose(text.decode(), Loader=_Loader)
        return None if document is None else _value(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _refusal(name, f"{place}{error.problem}") from error
    # PyYAML's scanner lets out IndexError and the like for some input.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal(name, "is no YAML that can be read") from error


class _Loader(yaml.SafeLoader):
    """Composes nodes; values are not made by its constructors, which fail in ways of their own."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = cast("yaml.Event", self.peek_event())  # pyright: ignore[reportUnknownMemberType] - no stubs
        problem = None
        if isinstance(event, yaml.AliasEvent):
            # A few lines of them make gigabytes.
            problem = "aliases are not allowed"
        elif isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            problem = "tags are not allowed"
        elif self.depth >= MAX_DEPTH:
            problem = f"there are more than {MAX_DEPTH} levels"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(node: yaml.Node) -> object:
    match node:
        case yaml.MappingNode():
            return _mapping(node)
        case yaml.SequenceNode():
            return [_value(item) for item in node.value]
        case yaml.ScalarNode():
            return _scalar(node)
        case _:
            raise TypeError(node)


def _mapping(node: yaml.MappingNode) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem="keys must be text", problem_mark=key_node.start_mark)
        if key in found:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is there twice", problem_mark=key_node.start_mark)
        found[key] = _value(value_node)
    return found


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if _NO_TEXT.search(text):
        raise yaml.MarkedYAMLError(
            problem="text must not contain NUL or half of a surrogate pair", problem_mark=node.start_mark
        )
    if node.style is not None:
        return text
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _BROKEN.fullmatch(text) else text


def _refusal(name: str, description: str) -> Refusal:
    return Refusal(Reason.INVALID_MANIFEST, f"{name}: {description}", violations=(Violation(name, description),))
