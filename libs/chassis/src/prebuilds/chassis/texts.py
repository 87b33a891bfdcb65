"""What no text of a request may hold: the character NUL, which Postgres stores in neither text nor jsonb."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_NUL: Final = "\0"


def fields_with_nul(message: Message, prefix: str = "") -> Iterator[str]:
    """Find the paths of all text fields, map keys and values that hold NUL: `workspace.name`, `parameters['size']`."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if _is_map(field):
            for key, held in cast("Mapping[Any, Any]", value).items():
                yield from _in_entry(path, key, held)
        elif field.is_repeated:
            for index, element in enumerate(cast("Iterable[Any]", value)):
                yield from _in_value(f"{path}[{index}]", element)
        else:
            yield from _in_value(path, value)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _in_entry(path: str, key: object, value: object) -> Iterator[str]:
    shown = f"{path}[{str(key).replace(_NUL, '?')!r}]"
    if isinstance(key, str) and _NUL in key:
        yield shown
    else:
        yield from _in_value(shown, value)


def _in_value(path: str, value: object) -> Iterator[str]:
    if isinstance(value, Message):
        yield from fields_with_nul(value, f"{path}.")
    elif isinstance(value, str) and _NUL in value:
        yield path
