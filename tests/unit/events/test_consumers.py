from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from prebuilds.domain.events import EventKind
from prebuilds.events.consumers import Subscription

BOTH = [
    Subscription.per_process("gateway", EventKind.HANDOVER_DUE, EventKind.AGENT_REVOKED),
    Subscription.shared("reconciler", EventKind.CLAIMED),
]


@pytest.mark.parametrize("subscription", BOTH, ids=lambda each: each.name)
def test_every_consumer_is_bounded(subscription: Subscription) -> None:
    config = subscription.consumer_config("name")
    assert config["max_deliver"] == 5
    assert config["ack_policy"] == "explicit"
    assert "backoff" not in config  # it would be added to the pauses that refusals ask for
    assert config["ack_wait"] == 10_000_000_000
    assert config["max_ack_pending"]


def test_an_ephemeral_consumer_begins_now_and_dies_when_nobody_asks() -> None:
    config = BOTH[0].consumer_config("gateway-1")
    assert config["filter_subjects"] == ["prebuilds.v1.agent_revoked.*", "prebuilds.v1.handover_due.*"]
    assert config["deliver_policy"] == "new"
    assert config["inactive_threshold"] == 30_000_000_000
    assert "durable_name" not in config


def test_a_shared_consumer_is_durable() -> None:
    config = BOTH[1].consumer_config("reconciler")
    assert config["durable_name"] == "reconciler"
    assert "inactive_threshold" not in config


@pytest.mark.parametrize(
    "changes",
    [
        {"max_deliver": 0},
        {"retry_after": ()},
        {"heartbeat": timedelta(seconds=31)},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        Subscription(name="x", events=frozenset(EventKind), is_shared=False, **changes)
