"""`agent.json`: what the agent is at the moment, for people and programs in the workspace."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from prebuilds.sdk.agent import AgentStatus

FILE_NAME: Final = "agent.json"

_log = structlog.get_logger(__name__)


class StatusFile:
    """Follows an agent's status; who reads sees the old file or the new one, never half of one."""

    def __init__(self, folder: Path) -> None:
        """`folder` must exist."""
        self._path = folder / FILE_NAME
        self._next = folder / f".{FILE_NAME}.{os.getpid()}"
        self._started_generation: int | None = None

    def follow(self, status: AgentStatus) -> None:
        """Write the file, and say in the log when the startup for an owner has ended."""
        try:
            self._next.write_text(json.dumps(_fields(status), indent=2) + "\n", encoding="utf-8")
            self._next.replace(self._path)
        except OSError as error:
            # A full disk is no reason to take the workspace away.
            _log.warning("status could not be written", path=str(self._path), error=str(error))
        self._announce(status)

    def _announce(self, status: AgentStatus) -> None:
        manifest = status.manifest
        if manifest is None or not status.state.ended_startup or manifest.generation == self._started_generation:
            return
        is_first = self._started_generation is None
        self._started_generation = manifest.generation
        who = {"owner": manifest.owner_name, "generation": manifest.generation}
        if status.error:
            _log.error("startup failed", **who, state=status.state.value, error=status.error)
        else:
            _log.info("started" if is_first else "reinitialized", **who)


def _fields(status: AgentStatus) -> dict[str, object]:
    fields: dict[str, object] = {"state": status.state.value, "error": status.error}
    manifest = status.manifest
    if manifest is not None:
        fields |= {
            "owner": manifest.owner_name,
            "owner_id": manifest.owner_id,
            "generation": manifest.generation,
            "workspace": manifest.workspace_name,
            "workspace_id": manifest.workspace_id,
            "is_prebuild": manifest.is_prebuild,
            "agent": manifest.agent_name,
        }
    return fields | {
        "incarnation": status.incarnation,
        "is_asking": status.is_asking,
        "is_superseded": status.is_superseded,
        "process": status.process,
        "pid": os.getpid(),
        "updated_at": datetime.now(UTC).isoformat(),
    }
