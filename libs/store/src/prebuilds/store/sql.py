"""Statements in `.sql` files: read as bytes when their module is imported, with parameters named `%(name)s`.

A literal `%` in a file is `%%`, in its comments too. Bytes are to psycopg a query that nobody put together at run time.

Hot statements about a few rows say `= ANY(ARRAY(SELECT unnest(%(ids)s::uuid[])))`. `= ANY(%(ids)s)` Postgres plans anew
each time, because the plan for an array of any length looks dearer to it than one for the array at hand, and often that
takes longer than the statement. An array that it cannot see has one plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Final

_PARAMETER: Final = re.compile(rb"%(?:\((?P<name>\w+)\)s|(?P<literal>%))")


class SqlFolder(Mapping[str, bytes]):
    """The `.sql` files beside a package's modules: `queries = SqlFolder(__package__)`, `queries["claim"]`."""

    def __init__(self, package: str) -> None:
        """Read them all; a file that is missing shows at the import of its user, not at its first use."""
        self._package = package
        self._statements = {
            Path(file.name).stem: file.read_bytes() for file in files(package).iterdir() if file.name.endswith(".sql")
        }

    def __getitem__(self, name: str) -> bytes:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"no {name}.sql in {self._package}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def installed_sql_files() -> list[Path]:
    """Find the `.sql` files of all installed members, those of migrations aside, so that a test can prepare them."""
    found = (file for folder in import_module("prebuilds").__path__ for file in Path(folder).rglob("*.sql"))
    return sorted({file.resolve() for file in found if "migrations" not in file.parts})


@dataclass(frozen=True, slots=True)
class NumberedStatement:
    """A statement as the server sees it, `$1` for its first parameter, and the parameters' names in that order."""

    text: bytes
    parameters: tuple[str, ...]


def numbered(statement: bytes) -> NumberedStatement:
    """Write named parameters as `$n`, one number for each name, and `%%` as `%`."""
    names: list[str] = []

    def number(match: re.Match[bytes]) -> bytes:
        if match["literal"] is not None:
            return b"%"
        name = match["name"].decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    return NumberedStatement(_PARAMETER.sub(number, statement), tuple(names))
