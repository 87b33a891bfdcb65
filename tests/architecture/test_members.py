"""What installing one member brings along, as the lock file has it: a service alone, an agent without a server."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SERVICES = frozenset(
    {
        "prebuilds-agent-gateway",
        "prebuilds-claims",
        "prebuilds-provisioner",
        "prebuilds-provisioner-daemon",
        "prebuilds-reconciler",
    }
)
AT_OTHER_PEOPLE = ("prebuilds-agent", "prebuilds-cli", "prebuilds-provisioner-daemon", "prebuilds-sdk")
OF_SERVERS = frozenset({"sqlalchemy", "alembic", "psycopg", "nats-py", "prebuilds-store", "prebuilds-events"})


@cache
def locked() -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    """Name -> its entries in the lock file; several where platforms have versions of their own."""
    content = tomllib.loads((ROOT / "uv.lock").read_text())
    found: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for package in content["package"]:
        found[package["name"]] = (*found.get(package["name"], ()), package)
    return found


def members() -> frozenset[str]:
    return frozenset(
        name for name, entries in locked().items() if any("editable" in entry["source"] for entry in entries)
    )


def requirements(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a package requires, with the extras it asks for; markers are not looked at: on any platform."""
    for entry in locked()[name]:
        optional = entry.get("optional-dependencies", {})
        for group in (entry.get("dependencies", []), *(optional.get(extra, []) for extra in sorted(extras))):
            for required in group:
                yield required["name"], frozenset(required.get("extra", ()))


def closure(member: str) -> frozenset[str]:
    """All that `uv sync --package <member>` installs, the member itself included; development groups are not."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(member, frozenset[str]())]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting.extend(requirements(*each))
    return frozenset(name for name, _ in seen)


def test_the_lock_file_knows_every_member() -> None:
    assert len(members()) == 14
    assert members() >= SERVICES | set(AT_OTHER_PEOPLE)


def test_a_closure_follows_dependencies_and_extras() -> None:
    assert closure("prebuilds-store") >= {"psycopg", "psycopg-binary", "psycopg-pool", "greenlet", "prebuilds-domain"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_brings_no_other_service(service: str) -> None:
    assert closure(service) & SERVICES == {service}


@pytest.mark.parametrize("member", sorted(members() - SERVICES - {"prebuilds-embedded"}))
def test_a_library_brings_no_service(member: str) -> None:
    assert not closure(member) & SERVICES


@pytest.mark.parametrize("member", AT_OTHER_PEOPLE)
def test_what_runs_at_other_people_brings_no_client_of_postgres_or_nats(member: str) -> None:
    assert not closure(member) & OF_SERVERS


def test_the_domain_brings_nothing() -> None:
    assert closure("prebuilds-domain") == {"prebuilds-domain"}


@pytest.mark.parametrize("member", sorted(members()))
def test_no_member_brings_the_tools_of_tests(member: str) -> None:
    assert not closure(member) & {"pytest", "hypothesis", "grpcio-tools", "ruff", "basedpyright"}
