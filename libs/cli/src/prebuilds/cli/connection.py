"""Where the servers are and who is asking: flags, then environment, then the client file.

The client file is TOML with `organization`, `reconciler`, `claims` and `token_file` (relative to the file). It is
looked for in PREBUILDS_CLIENT_FILE, then `.prebuilds/client.toml`, which `make run` writes, then
`~/.config/prebuilds/client.toml`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar

import typer

from prebuilds.sdk.archives import ArchiveError
from prebuilds.sdk.channels import Target
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.sdk.errors import PrebuildsError

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2

T = TypeVar("T")

Organization = Annotated[
    str, typer.Option("--organization", "-O", envvar="PREBUILDS_ORGANIZATION", help="Name or id of the organization.")
]


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the servers, and the organization to work in unless a flag says otherwise."""

    reconciler: str
    claims: str
    token: str
    organization: str


def run(work: Callable[[PrebuildsClient, str], Awaitable[T]], *, organization: str = "") -> T:
    """Run one command against the servers; what they refuse ends the program with 1 and the reason on stderr."""
    connection = find_connection()
    chosen = organization or connection.organization

    async def connected() -> T:
        async with open_client(
            reconciler=connection.reconciler, claims=connection.claims, token=connection.token
        ) as client:
            return await work(client, chosen)

    try:
        return asyncio.run(connected())
    except PrebuildsError as error:
        reason = error.reason_name or error.code.name
        fail(f"{error} [{reason}]" if not error.violations else str(error))
    except ArchiveError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def find_connection() -> Connection:
    """Read environment and client file; one that is missing, or not what it should be, ends the program with 2."""
    path = _client_file()
    try:
        given = {} if path is None else tomllib.loads(_text_of(path, "client file"))
    except tomllib.TOMLDecodeError as error:
        fail(f"the client file {path} is not TOML: {error}", EXIT_USAGE)
    token = os.environ.get("PREBUILDS_TOKEN", "") or _token(path, given)
    values = {
        name: os.environ.get(f"PREBUILDS_{name.upper()}", "") or str(given.get(name, ""))
        for name in ("reconciler", "claims", "organization")
    }
    missing = [name for name in ("reconciler", "claims") if not values[name]]
    if missing:
        variables = " and ".join(f"PREBUILDS_{name.upper()}" for name in missing)
        fail(
            f"no servers known: set {variables}, or PREBUILDS_CLIENT_FILE, or run in the folder of `make run`",
            EXIT_USAGE,
        )
    for name in ("reconciler", "claims"):
        try:
            Target.of(values[name])
        except ValueError as error:
            fail(f"the address of the {name} is wrong: {error}", EXIT_USAGE)
    if not (token.isascii() and token.isprintable()):
        fail("the token is none: it has characters that no token has", EXIT_USAGE)
    return Connection(values["reconciler"], values["claims"], token, values["organization"] or "default")


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """End the program with a message for people."""
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(code)


def _client_file() -> Path | None:
    if named := os.environ.get("PREBUILDS_CLIENT_FILE"):
        return Path(named)
    usual = (Path(".prebuilds/client.toml"), Path.home() / ".config/prebuilds/client.toml")
    return next((path for path in usual if path.is_file()), None)


def _token(client_file: Path | None, given: dict[str, object]) -> str:
    if named := os.environ.get("PREBUILDS_TOKEN_FILE"):
        return _text_of(Path(named), "token file of PREBUILDS_TOKEN_FILE").strip()
    if client_file is None or "token_file" not in given:
        return ""
    return _text_of(client_file.parent / str(given["token_file"]), f"token file named in {client_file}").strip()


def _text_of(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        fail(f"the {what} cannot be read: {path}: {error.strerror}", EXIT_USAGE)
    except UnicodeDecodeError:
        fail(f"the {what} cannot be read: {path}: it is no text", EXIT_USAGE)
