from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilds.domain.names import MAX_NAME_LENGTH, default_workspace_name, is_id, is_name, prebuild_name


@pytest.mark.parametrize("text", ["a", "python-dev", "a1-b2-c3", "x" * MAX_NAME_LENGTH])
def test_words_joined_by_dashes_are_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", "a--b", "A", "a b", "a_b", "ü", "a\n", "x" * (MAX_NAME_LENGTH + 1)])
def test_anything_else_is_none(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["0d5f4b8e-6d1d-4b67-9a8c-1f6a5f3f6f10", "0d5f4b8e6d1d4b679a8c1f6a5f3f6f10"])
def test_a_uuid_is_no_name_because_requests_take_name_or_id(text: str) -> None:
    assert not is_name(text)


@given(st.binary(min_size=9, max_size=9))
def test_a_prebuild_is_named_by_fifteen_characters(random: bytes) -> None:
    name = prebuild_name(random)

    assert is_name(name)
    assert len(name) == len("prebuild-") + 15


@given(template=st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,62}", fullmatch=True), random=st.binary(min_size=4, max_size=8))
def test_a_workspace_is_named_after_its_template(template: str, random: bytes) -> None:
    name = default_workspace_name(template, random)

    assert is_name(name)
    assert name[-7] == "-"
    assert template.startswith(name[:-7])


@pytest.mark.parametrize(
    "text", [str(UUID(int=7)), UUID(int=7).hex.upper(), f"{{{UUID(int=7)}}}", f"urn:uuid:{UUID(int=7)}"]
)
def test_an_id_is_whatever_requests_read_as_one(text: str) -> None:
    assert is_id(text)
    assert not is_id(f"{text}x")
