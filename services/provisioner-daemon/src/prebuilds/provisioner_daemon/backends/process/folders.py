"""Where a workspace lives: its folder, its lock, and what is in them.

::

    <state root>/locks/<workspace>.lock          held by who works on the workspace
    <state root>/workspaces/<workspace>/         0700
        files/                                   the unpacked archive; agents and scripts run here
        home/  tmp/                              HOME and TMPDIR of all that runs
        workspace.json                           what a template may see of its workspace
        version                                  which version `files` is of
        agents/<agent>/                          one per agent: token (0600), supervisor's lock and pid, log, and
                                                 launch.json while it should run
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

_OWNER_ONLY: Final = 0o700
_LOOK_AGAIN: Final = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class WorkspaceFolder:
    """The folder of one workspace."""

    path: Path

    @property
    def files(self) -> Path:
        """The unpacked archive."""
        return self.path / "files"

    @property
    def home(self) -> Path:
        """HOME of all that runs."""
        return self.path / "home"

    @property
    def temporary(self) -> Path:
        """TMPDIR of all that runs."""
        return self.path / "tmp"

    @property
    def metadata(self) -> Path:
        """What a template may see of its workspace, as JSON."""
        return self.path / "workspace.json"

    @property
    def version(self) -> Path:
        """Which version `files` is of."""
        return self.path / "version"

    @property
    def agents(self) -> Path:
        """The folder of agents' folders."""
        return self.path / "agents"

    def agent(self, agent_id: UUID) -> Path:
        """The folder of one agent."""
        return self.agents / str(agent_id)

    def agent_folders(self) -> list[Path]:
        """The folders of all agents that there are or were."""
        return sorted(self.agents.iterdir()) if self.agents.is_dir() else []

    def make(self) -> None:
        """Make the folder and those in it."""
        for folder in (self.path, self.home, self.temporary, self.agents):
            folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            folder.chmod(_OWNER_ONLY)

    def remove(self) -> None:
        """Remove it with all that is in it, whatever modes the workspace gave its own folders."""
        if self.path.is_symlink() or not self.path.exists():
            return
        self.path.chmod(_OWNER_ONLY)
        for parent, folders, _ in os.walk(self.path):
            for name in folders:
                folder = Path(parent, name)
                if not folder.is_symlink():
                    folder.chmod(_OWNER_ONLY)
        shutil.rmtree(self.path)


@dataclass(frozen=True, slots=True)
class StateRoot:
    """The folder that the daemons of a host share."""

    path: Path

    def workspace(self, workspace_id: UUID) -> WorkspaceFolder:
        """The folder of a workspace, there or not."""
        return WorkspaceFolder(self.path / "workspaces" / str(workspace_id))

    def workspace_ids(self) -> list[UUID]:
        """The workspaces that have a folder."""
        workspaces = self.path / "workspaces"
        return [UUID(folder.name) for folder in sorted(workspaces.iterdir())] if workspaces.is_dir() else []

    @contextlib.asynccontextmanager
    async def locked(self, workspace_id: UUID) -> AsyncGenerator[Callable[[], None]]:
        """Hold a workspace's lock against all daemons of the host; yields what removes the lock file at the end.

        The kernel frees the lock when its holder dies.
        """
        folder = self.path / "locks"
        folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        path = folder / f"{workspace_id}.lock"
        descriptor = await _lock(path)
        try:
            yield lambda: path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


async def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        await asyncio.sleep(_LOOK_AGAIN)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one at that path: who deletes a workspace removes it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_private(path: Path, content: str) -> None:
    """Write a file for the owner alone, whole or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    scratch.replace(path)


def read_if_there(path: Path) -> str | None:
    """The file's text; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def write_metadata(folder: WorkspaceFolder, facts: Mapping[str, object]) -> None:
    """Write what a template may see of its workspace."""
    write_private(folder.metadata, json.dumps(facts, indent=2, sort_keys=True) + "\n")
