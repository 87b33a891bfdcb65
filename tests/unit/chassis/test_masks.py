"""Reading the field masks of updates."""

from __future__ import annotations

import pytest

from prebuilds.chassis.fields import Fields
from prebuilds.domain.refusals import Refusal

FIELDS = ("display_name", "lifecycle.ttl", "lifecycle.autostart")


def test_a_mask_names_fields() -> None:
    assert Fields().mask(["display_name", "lifecycle.ttl", "display_name"], FIELDS) == {"display_name", "lifecycle.ttl"}


def test_a_message_stands_for_all_fields_below_it() -> None:
    assert Fields().mask(["lifecycle"], FIELDS) == {"lifecycle.ttl", "lifecycle.autostart"}


def test_an_empty_mask_is_refused() -> None:
    fields = Fields()

    assert fields.mask([], FIELDS) == frozenset()
    with pytest.raises(Refusal) as refused:
        fields.done()
    assert [violation.field for violation in refused.value.violations] == ["update_mask"]


@pytest.mark.parametrize("path", ["name", "lifecycle.", "lifecycle.ttl.seconds", "life", "*", "", "display_name.x"])
def test_every_unknown_path_is_told(path: str) -> None:
    fields = Fields()

    fields.mask([path, "display_name", "other"], FIELDS)

    with pytest.raises(Refusal) as refused:
        fields.done()
    described = [violation.description for violation in refused.value.violations]
    assert [text.split(" is not ")[0] for text in described] == [repr(path), "'other'"]
