"""The YAML of a manifest: plain values only, told apart from what a few lines can blow up to."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from prebuilds.domain.refusals import Reason, Refusal, Violation


def read_yaml(text: bytes, name: str) -> object:
    """Read plain values; Refusal INVALID_MANIFEST for what is no YAML, repeats a key, or uses aliases."""
    try:
        return yaml.load(text.decode(), Loader=_Loader)  # noqa: S506 - a safe loader, and stricter
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _refusal(name, f"{place}{error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refusal(name, "is no YAML that can be read") from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - as PyYAML
        if self.check_event(yaml.AliasEvent):
            # A few lines of them make gigabytes.
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - as PyYAML
        seen: set[str] = set()
        for key_node, _ in node.value:
            key: object = self.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType] - no stubs
            problem = None
            if not isinstance(key, str):
                problem = "keys must be text"
            elif key in seen:
                problem = f"the key {key!r} is there twice"
            else:
                seen.add(key)
            if problem is not None:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


def _refusal(name: str, description: str) -> Refusal:
    return Refusal(Reason.INVALID_MANIFEST, f"{name}: {description}", violations=(Violation(name, description),))
