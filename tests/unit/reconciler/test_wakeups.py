"""Which pools an event is about."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, WorkspaceId
from prebuilds.events.bodies import MESSAGES, Hint
from prebuilds.events.subjects import DEPLOYMENT
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.wakeups import EVERYTHING, extent_of

SUBJECT = uuid4()
PRESET = PresetId(uuid4())
ITS_POOL = Extent(preset_ids=frozenset({PRESET}))
AND_ITS_NEIGHBOURS = Extent(preset_ids=frozenset({PRESET}), neighbours_of=frozenset({PRESET}))
OF_WORKSPACE = Extent(workspace_ids=frozenset({WorkspaceId(SUBJECT)}))


def hint(event: EventKind, subject_id: UUID = SUBJECT, **said: Any) -> Hint:
    return Hint(event, subject_id, None, None, MESSAGES[event](**said), None)


def unread(event: EventKind) -> Hint:
    return Hint(event, SUBJECT, None, None, None, None)


@pytest.mark.parametrize(
    "heard, pools",
    [
        (hint(EventKind.CLAIMED, preset_id=str(PRESET)), ITS_POOL),
        (unread(EventKind.CLAIMED), EVERYTHING),
        (hint(EventKind.BUILD_CHANGED, preset_id=str(PRESET), is_prebuild=True), AND_ITS_NEIGHBOURS),
        (hint(EventKind.BUILD_CHANGED), OF_WORKSPACE),
        (hint(EventKind.BUILD_CHANGED, preset_id="none of ours", is_prebuild=True), OF_WORKSPACE),
        (unread(EventKind.BUILD_CHANGED), OF_WORKSPACE),
        (hint(EventKind.TEMPLATE_CHANGED, preset_ids=[str(PRESET)]), ITS_POOL),
        (hint(EventKind.TEMPLATE_CHANGED), Extent(template_ids=frozenset({TemplateId(SUBJECT)}))),
        (hint(EventKind.SETTINGS_CHANGED, DEPLOYMENT), EVERYTHING),
        (
            hint(EventKind.SETTINGS_CHANGED),
            Extent(
                preset_ids=frozenset({PresetId(SUBJECT)}),
                template_ids=frozenset({TemplateId(SUBJECT)}),
                organization_ids=frozenset({OrganizationId(SUBJECT)}),
            ),
        ),
    ],
)
def test_a_hint_leads_to_the_pools_that_it_is_about(heard: Hint, pools: Extent) -> None:
    assert extent_of(heard) == pools


def test_a_build_of_a_persons_workspace_is_about_no_pool() -> None:
    assert not extent_of(hint(EventKind.BUILD_CHANGED, preset_id=str(PRESET)))


def test_events_of_others_are_about_no_pool() -> None:
    assert not extent_of(hint(EventKind.JOB_QUEUED))
