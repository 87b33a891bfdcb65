from __future__ import annotations

from datetime import timedelta

import pytest

from prebuilds.domain.durations import written


@pytest.mark.parametrize(
    "length, text",
    [
        (timedelta(), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=8), "8h"),
        (timedelta(days=30), "30d"),
        (timedelta(days=1, milliseconds=500), "1d0.5s"),
    ],
)
def test_lengths_are_written_as_people_write_them(length: timedelta, text: str) -> None:
    assert written(length) == text
