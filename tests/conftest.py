"""Fixtures live by subject in tests/support; each of its modules that has some is named here once."""

from __future__ import annotations

import os

# gRPC's handlers around a fork kill children of a process that has calls open, one in five; it reads this at import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

pytest_plugins: list[str] = [
    "tests.support.claims",
    "tests.support.gateway",
    "tests.support.nats",
    "tests.support.postgres",
    "tests.support.provisioning",
    "tests.support.reconciling",
    "tests.support.people",  # stands on the one before: pytest wants to be the first to import what it registers
    "tests.support.stack",
]
