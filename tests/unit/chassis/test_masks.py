"""Reading the field masks of updates, and what is told of them and of filters that are wrong."""

from __future__ import annotations

import pytest

from prebuilds.chassis.fields import MAX_NAMED, Fields
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


def test_of_an_unknown_path_that_is_longer_than_any_name_only_the_beginning_is_told() -> None:
    fields = Fields()

    fields.mask(["x" * 100_000], FIELDS)

    with pytest.raises(Refusal) as refused:
        fields.done()
    (violation,) = refused.value.violations
    shown, _, known = violation.description.partition(" is not one of: ")
    assert shown == repr("x" * (MAX_NAMED - 3) + "...")
    assert known == ", ".join(FIELDS)


@pytest.mark.parametrize("wanted", ["x" * 100_000, "x" * 100_000 + "=1"])
def test_of_a_part_of_a_filter_that_is_wrong_only_the_beginning_is_told(wanted: str) -> None:
    fields = Fields()

    fields.filter(wanted, FIELDS)

    with pytest.raises(Refusal) as refused:
        fields.done()
    (violation,) = refused.value.violations
    assert len(violation.description) < 2 * MAX_NAMED
