"""Names: how they look and how the system makes its own."""

from __future__ import annotations

import base64
import re
from typing import Final
from uuid import UUID

NAME_PATTERN: Final = r"[a-z0-9](?:-?[a-z0-9])*"
"""Names of organisations, templates and workspaces: lower-case words joined by single dashes."""

MAX_NAME_LENGTH: Final = 63
PREBUILD_NAME_BYTES: Final = 9
WORKSPACE_SUFFIX_LENGTH: Final = 6

_NAME = re.compile(NAME_PATTERN)
_UUID = re.compile(r"(?:[0-9a-f]-?){32}")  # with hyphens anywhere, as `uuid.UUID` reads it
_PREBUILD_PREFIX: Final = "prebuild-"
_PREBUILD_SUFFIX_LENGTH: Final = 15


def is_name(text: str) -> bool:
    """Whether the text can be a name; what looks like an id cannot, because requests take either."""
    return len(text) <= MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None and _UUID.fullmatch(text) is None


def is_id(text: str) -> bool:
    """Whether requests would take the text for an id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def prebuild_name(random: bytes) -> str:
    """`prebuild-` and 15 characters of lower-case base32 of 9 random bytes (behaviour section 5)."""
    return _PREBUILD_PREFIX + _base32(random)[:_PREBUILD_SUFFIX_LENGTH]


def default_workspace_name(template: str, random: bytes) -> str:
    """`<template>-` and 6 characters of base32 (behaviour section 6), the template's part cut where it is too long."""
    suffix = _base32(random)[:WORKSPACE_SUFFIX_LENGTH]
    return f"{template[: MAX_NAME_LENGTH - WORKSPACE_SUFFIX_LENGTH - 1].rstrip('-')}-{suffix}"


def _base32(random: bytes) -> str:
    return base64.b32encode(random).decode().rstrip("=").lower()
