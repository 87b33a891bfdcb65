"""Reading requests: what is good is read, and all that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from prebuilds.chassis.fields import Fields, read_id
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal

Read = Callable[[Fields], object]

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def problems(read: Read) -> list[str]:
    fields = Fields()
    read(fields)
    with pytest.raises(Refusal) as refused:
        fields.done()
    assert refused.value.reason is Reason.INVALID_FIELDS
    return [violation.description for violation in refused.value.violations]


def test_everything_wrong_is_told_at_once_under_its_field() -> None:
    fields = Fields()
    fields.id("id", "x")
    fields.required("organization", "")
    fields.request_id("\n")
    with pytest.raises(Refusal) as refused:
        fields.done()
    assert [violation.field for violation in refused.value.violations] == ["id", "organization", "request_id"]


def test_what_is_good_is_read() -> None:
    fields = Fields()
    assert fields.id("id", str(UUID(int=7))) == UUID(int=7)
    assert fields.name("name", "python-dev") == "python-dev"
    assert fields.request_id("") == ""
    assert fields.at_most("text", "äöü", 3) == "äöü"
    assert fields.required("organization", "x" * 200) == "x" * 200
    assert fields.optional("preset", "") == ""
    assert fields.duration("ttl", Duration(seconds=60), least=MINUTE, most=DAY) == MINUTE
    assert fields.duration("ttl", Duration(), least=MINUTE) == timedelta(0)
    assert fields.time("time", Timestamp(seconds=1)).timestamp() == 1
    fields.done()


WRONG: list[tuple[Read, str]] = [
    (lambda fields: fields.id("id", ""), "is required"),
    (lambda fields: fields.id("id", "5"), "must be a UUID"),
    (lambda fields: fields.name("name", ""), "is required"),
    (lambda fields: fields.name("name", "A b"), "lower-case"),
    (lambda fields: fields.name("name", str(UUID(int=7))), "no UUID"),
    (lambda fields: fields.at_most("text", "four", 3), "at most 3"),
    (lambda fields: fields.required("organization", ""), "is required"),
    (lambda fields: fields.required("organization", "x" * 201), "at most 200"),
    (lambda fields: fields.optional("preset", "x" * 201), "at most 200"),
    (lambda fields: fields.at_most("text", "\0", 3), "NUL"),
    (lambda fields: fields.request_id("x" * 129), "1 to 128"),
    (lambda fields: fields.duration("d", Duration(seconds=10**12)), "is not a duration"),
    (lambda fields: fields.duration("d", Duration(seconds=-1)), "at least 0s"),
    (lambda fields: fields.duration("d", Duration(seconds=61), most=MINUTE), "must be 0s to 1m"),
    (lambda fields: fields.duration("d", Duration(seconds=1), least=MINUTE), "must be zero, or at least 1m"),
    (lambda fields: fields.duration("d", Duration(seconds=1), least=MINUTE, most=DAY), "zero, or 1m to 1d"),
    (lambda fields: fields.duration("d", Duration(seconds=1), least=MINUTE, most=30 * DAY), "zero, or 1m to 30d"),
    (lambda fields: fields.duration("d", Duration(seconds=1, nanos=-1)), "is not a duration"),
    (lambda fields: fields.duration("d", Duration(seconds=-1, nanos=1)), "is not a duration"),
    (lambda fields: fields.duration("d", Duration(nanos=10**9)), "is not a duration"),
    (lambda fields: fields.time("t", Timestamp(nanos=-1)), "is no time"),
    (lambda fields: fields.time("time", Timestamp(seconds=10**12)), "no time"),
]


@pytest.mark.parametrize("read, words", WRONG)
def test_each_way_of_being_wrong_has_its_words(read: Read, words: str) -> None:
    (told,) = problems(read)
    assert words in told


def test_a_filter_is_read() -> None:
    fields = Fields()
    wanted = fields.filter("name=a b AND role=owner AND here=true", ("name", "role", "here", "id"))
    assert (wanted.text("name"), wanted.word("role", Role), wanted.truth("here")) == ("a b", Role.OWNER, True)
    assert wanted.id("id") is None
    assert fields.filter("  ", ("name",)).text("name") is None
    fields.done()


def test_everything_wrong_with_a_filter_is_told() -> None:
    def read(fields: Fields) -> None:
        wanted = fields.filter("name AND size= AND colour=red AND size=1 AND size=2", ("name", "size"))
        wanted.word("size", Role)
        wanted.truth("size")
        wanted.id("size")

    assert len(problems(read)) == 7


def test_a_request_of_one_id_is_read_or_refused() -> None:
    assert read_id(str(UUID(int=7))) == UUID(int=7)
    with pytest.raises(Refusal):
        read_id("7")
