"""Network addresses as `host:port`, and the file in which a process tells its supervisor where it listens."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a process listens; None for what it does not serve."""

    grpc: str | None = None
    metrics: str | None = None


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`; raises ValueError where it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise ValueError("must be host:port, with a port from 0 to 65535 (0 = a free one)")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError("an IPv6 host must stand in brackets, [::1]:7080")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The address that `split_address` splits into these."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def write_addresses(path: Path, addresses: Addresses) -> None:
    """Write the addresses as JSON, whole or not at all: a supervisor polls for this file."""
    told = {"grpc": addresses.grpc, "metrics": addresses.metrics}
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps({name: value for name, value in told.items() if value is not None}) + "\n")
    scratch.replace(path)
