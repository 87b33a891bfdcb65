"""One vocabulary of refusals: the domain's enum, its table of codes, and the proto enum with its comments."""

from __future__ import annotations

import re
from pathlib import Path

from prebuilds.domain.refusals import CODES, Reason

PROTO = Path(__file__).parents[2] / "protos/prebuilds/v1/reason.proto"
VALUE = re.compile(r"// (?P<code>[A-Z_]+): [^=]*?REASON_(?P<reason>\w+) = \d+;")


def _codes_of_proto() -> dict[str, str]:
    return {match["reason"]: match["code"] for match in VALUE.finditer(PROTO.read_text())}


def test_every_reason_has_a_code() -> None:
    assert set(CODES) == set(Reason)


def test_domain_and_proto_know_the_same_reasons_with_the_same_codes() -> None:
    assert _codes_of_proto() == {reason.value: code.value for reason, code in CODES.items()}


def test_a_reason_is_spelled_as_it_is_named() -> None:
    assert all(reason.name == reason.value for reason in Reason)
