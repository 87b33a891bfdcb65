"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Protocol, TypeAlias, TypeVar

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNBOUNDED: Final = 10_000  # columns
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]

Cell: TypeAlias = str | Text

# What is printed are names and errors of other people: square brackets and colons in them mean nothing.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


Value = TypeVar("Value")
Value_contra = TypeVar("Value_contra", contravariant=True)


class _Enum(Protocol[Value_contra]):
    """A proto enum."""

    def Name(self, number: Value_contra) -> str: ...  # noqa: N802 - protobuf's name


def show_json(message: Message | Iterable[Message]) -> None:
    """Print a message, or a list of them, with the fields' own names and all that have a default."""
    sys.stdout.write(json.dumps(_plain(message), indent=2) + "\n")


def show_json_object(**parts: Message | Iterable[Message]) -> None:
    """Print what several calls answered as one object."""
    sys.stdout.write(json.dumps({name: _plain(part) for name, part in parts.items()}, indent=2) + "\n")


def json_line(message: Message) -> None:
    """Print a message on one line, for streams."""
    sys.stdout.write(json.dumps(_as_dict(message)) + "\n")
    sys.stdout.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Make a table without lines, as `ps` and `kubectl` have it."""
    made = Table(*(header.upper() for header in headers), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def show_table(headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table as wide as it is: nothing is cut off, in a pipe least of all."""
    made = table(headers, rows)
    Console(width=width_of(made), highlight=False, markup=False, emoji=False).print(made, crop=False)


def width_of(made: Table) -> int:
    """How many columns of a terminal a table takes where it is not squeezed."""
    unbounded = console.options.update(max_width=_UNBOUNDED)
    return Measurement.get(console, unbounded, made).maximum


def show_facts(facts: Mapping[str, Cell]) -> None:
    """Print what there is to say of one thing, a line each, further lines of a value below its first."""
    width = max(map(len, facts))
    for name, value in facts.items():
        lines = value.split("\n") if isinstance(value, Text) else [Text(line) for line in printable(value).split("\n")]
        for index, line in enumerate(lines):
            console.print(Text(f"{'' if index else name:<{width}}  ") + line)


def printable(text: str) -> str:
    """The text without what would steer a terminal: some of it was written by builds."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def word(enum: _Enum[Value], value: Value, prefix: str) -> str:
    """Write an enum's value as people read it: WORKSPACE_STATUS_RUNNING -> running."""
    return enum.Name(value).removeprefix(prefix).lower()


def age(moment: Timestamp) -> str:
    """How long ago: 12s, 5m, 3h, 2d; a dash for a moment that is not set."""
    if moment.ByteSize() == 0:
        return "-"
    seconds = int((datetime.now(UTC) - moment.ToDatetime(UTC)).total_seconds())
    for unit, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{max(seconds, 0)}s"


def _plain(message: Message | Iterable[Message]) -> object:
    return _as_dict(message) if isinstance(message, Message) else [_as_dict(each) for each in message]


def _as_dict(message: Message) -> dict[str, object]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
