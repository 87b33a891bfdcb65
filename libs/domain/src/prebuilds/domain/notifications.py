"""Notifications: what people of one role in an organisation are told."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MAX_TITLE: Final = 200
"""Characters of a title, which is one line."""
MAX_BODY: Final = 4000
"""Characters of a body."""


class NotificationKind(StrEnum):
    """What a notification is about."""

    PRESET_HARD_LIMITED = "preset_hard_limited"
    """A preset's newest prebuilds all failed by the template's fault; the subject is the preset."""
    RESOURCES_REPLACED = "resources_replaced"
    """A claim build replaced resources; the subject is the workspace."""
