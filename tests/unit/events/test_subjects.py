from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from prebuilds.domain.events import EventKind
from prebuilds.events.subjects import DEPLOYMENT, Subject, filter_subject, format_subject, parse_subject

ID = UUID("00000000-0000-0000-0000-00000000002a")


@pytest.mark.parametrize("event", EventKind)
def test_a_subject_is_read_as_it_was_written(event: EventKind) -> None:
    subject_id = uuid4()
    assert parse_subject(format_subject(event, subject_id)) == Subject(event, subject_id)


def test_a_subject_names_event_and_id() -> None:
    assert format_subject(EventKind.CLAIMED, ID) == "prebuilds.v1.claimed.00000000-0000-0000-0000-00000000002a"
    assert filter_subject(EventKind.CLAIMED) == "prebuilds.v1.claimed.*"


def test_what_concerns_everything_is_spelled_deployment() -> None:
    spelled = format_subject(EventKind.SETTINGS_CHANGED, DEPLOYMENT)
    assert spelled == "prebuilds.v1.settings_changed.deployment"
    assert parse_subject(spelled) == Subject(EventKind.SETTINGS_CHANGED, DEPLOYMENT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prebuilds.v1.claimed",
        "prebuilds.v1.claimed.42",
        f"prebuilds.v1.exploded.{ID}",
        f"prebuilds.v2.claimed.{ID}",
        f"prebuilds.v1.claimed.{ID}.more",
    ],
)
def test_other_subjects_are_of_no_known_event(text: str) -> None:
    assert parse_subject(text) is None
