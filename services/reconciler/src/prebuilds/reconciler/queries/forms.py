"""A statement about presets in three forms: about one, about some, about all of them.

Each is planned once and not each time (see `store.sql`): one preset is compared with, an array of some is not shown to
the planner. And where every preset is meant, ten thousand ids would be sent, read and hashed to leave nothing out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.ids import SYSTEM_USER_ID, PresetId

_SOME: Final = b"= ANY(%(preset_ids)s)"
_SOME_UNSEEN: Final = b"= ANY(ARRAY(SELECT unnest(%(preset_ids)s::uuid[])))"
_ONE: Final = b"= %(preset_id)s::uuid"
_SYSTEM_USER: Final = b"%(system_user_id)s"
_SYSTEM_USER_ID: Final = f"'{SYSTEM_USER_ID}'::uuid".encode()
"""Written out: a plan that is made for any user does not use an index of the system user's rows."""


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms of a statement; which one is taken is decided by the presets that it is asked about."""

    one: bytes
    some: bytes
    all: bytes

    @classmethod
    def of(cls, statement: bytes, *, all_of_them: bytes = b"IS NOT NULL") -> Forms:
        """Make them of a statement that compares ids with `= ANY(%(preset_ids)s)`.

        `all_of_them` takes the place of that comparison in the form that is about all.
        """
        assert _SOME in statement, "a statement about some presets says so"  # noqa: S101 - a mistake of this program
        written = statement.replace(_SYSTEM_USER, _SYSTEM_USER_ID)
        return cls(*(written.replace(_SOME, form) for form in (_ONE, _SOME_UNSEEN, all_of_them)))

    def about(self, preset_ids: Collection[PresetId] | None, **parameters: object) -> tuple[bytes, dict[str, object]]:
        """Give statement and parameters for these presets; None: all of them."""
        if preset_ids is None:
            return self.all, parameters
        if len(preset_ids) == 1:
            (preset_id,) = preset_ids
            return self.one, {**parameters, "preset_id": preset_id}
        return self.some, {**parameters, "preset_ids": list(preset_ids)}
