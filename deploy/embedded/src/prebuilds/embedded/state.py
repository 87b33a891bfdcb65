"""The one folder in which the laptop stack keeps everything: data, keys, logs, ports."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import socket
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from prebuilds.embedded.postgres import is_reachable

_SOCKET_NAME: Final = ".s.PGSQL.5432"
_MAX_SOCKET_PATH: Final = 107
_ROOTS_STATE: Final = Path("/var/lib/prebuilds")
_UNPRIVILEGED: Final = "nobody"


class StateError(Exception):
    """The folder cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where everything lies; made by `prepare`, found again by the next run."""

    path: Path

    @property
    def postgres_data(self) -> Path:
        """The database cluster."""
        return self.path / "postgres" / "data"

    @property
    def postgres_socket(self) -> Path:
        """Folder of the database's socket: here, or under the system's temporary folder where this path is too long."""
        here = self.path / "postgres" / "run"
        if len(os.fsencode(here / _SOCKET_NAME)) <= _MAX_SOCKET_PATH:
            return here
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"prebuilds-{digest}"

    @property
    def nats_data(self) -> Path:
        """JetStream's files."""
        return self.path / "nats"

    @property
    def keys(self) -> Path:
        """Keys and tokens, for the owner's eyes only."""
        return self.path / "keys"

    @property
    def logs(self) -> Path:
        """A file per program."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """What the running programs tell: their addresses."""
        return self.path / "run"

    @property
    def workspaces(self) -> Path:
        """The state root of the provisioner daemon."""
        return self.path / "workspaces"

    @property
    def client_file(self) -> Path:
        """What the command-line client reads to find this stack."""
        return self.path / "client.toml"

    def prepare(self) -> None:
        """Make the folders; nothing where they are."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.logs, self.run, self.nats_data, self.workspaces):
            folder.mkdir(exist_ok=True)
        self.keys.mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Hold the folder against a second stack; raises StateError where one runs on it."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(f"a stack runs on {self.path} already") from None
            yield

    def ports(self, names: Sequence[str]) -> Mapping[str, int]:
        """Give each program the port that it had before, or a free one; so agents and people find it again."""
        file = self.path / "ports.json"
        known = cast("dict[str, int]", json.loads(file.read_text())) if file.exists() else {}
        with contextlib.ExitStack() as held:
            ports = {name: held.enter_context(_bound_port(known.get(name, 0))) for name in names}
        file.write_text(json.dumps(ports, indent=2) + "\n")
        return ports


def default_state_folder(folder: Path) -> Path:
    """`.prebuilds` in this folder; for root, whose Postgres runs as somebody else, one that somebody else can reach."""
    if os.geteuid() != 0 or is_reachable(folder, pwd.getpwnam(_UNPRIVILEGED)):
        return folder / ".prebuilds"
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    return _ROOTS_STATE / digest


@contextlib.contextmanager
def _bound_port(wanted: int) -> Generator[int]:
    """Hold a port of the loopback interface, the one wanted if it is free, so that no two programs get the same."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", wanted))
        except OSError:
            held.bind(("127.0.0.1", 0))
        yield cast("int", held.getsockname()[1])
