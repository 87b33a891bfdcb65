"""The rooms of a service as an import contract: layers in which the use cases need not be listed.

A service names its use cases and loops as it likes (claiming, passes, wakeups), so import-linter's own layers would
need each of them in pyproject.toml, and one forgotten there would be held to nothing. Here every module of a service
that is no other room is a use case; use cases may import each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import grimp
from importlinter.contracts.layers import Layer, LayersContract, ModuleTail
from importlinter.domain.contract import ContractCheck
from importlinter.domain.imports import ModuleExpression

USE_CASES = "use cases"


class RoomsContract(LayersContract):
    type_name = "rooms"

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        services = [expression.expression for expression in cast("list[ModuleExpression]", self.containers)]
        modules = {child.removeprefix(f"{service}.") for service in services for child in graph.find_children(service)}
        self.layers: list[Layer] = with_use_cases(self.layers, modules)
        return super().check(graph, verbose)


def with_use_cases(layers: list[Layer], modules: set[str]) -> list[Layer]:
    named = {tail.name for layer in layers for tail in layer.module_tails}
    use_cases = {ModuleTail(name, is_optional=True) for name in modules - named}
    place = next(place for place, layer in enumerate(layers) if ModuleTail(USE_CASES) in layer.module_tails)
    between = [replace(layers[place], module_tails=use_cases, is_independent=False)] if use_cases else []
    return [*layers[:place], *between, *layers[place + 1 :]]
