"""Fixtures live by subject in tests/support; each of its modules that has some is named here once."""

from __future__ import annotations

pytest_plugins: list[str] = [
    "tests.support.claims",
    "tests.support.gateway",
    "tests.support.nats",
    "tests.support.postgres",
    "tests.support.provisioning",
    "tests.support.reconciling",
    "tests.support.stack",
]
