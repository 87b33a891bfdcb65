"""Consumers: what a subscription asks of the server, declared on purpose and bounded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from prebuilds.domain.events import EventKind
from prebuilds.events.jetstream import nanoseconds
from prebuilds.events.subjects import filter_subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Which events, for whom, and how often they are tried."""

    name: str
    """Of the consumer, or what its name begins with; letters, digits, dashes."""
    events: frozenset[EventKind]
    is_shared: bool
    """One durable consumer for all replicas, each event to one of them; else an ephemeral one for each process."""
    max_deliver: int = 5
    ack_wait: timedelta = timedelta(seconds=10)
    """How long a handler may take, and when what nobody answered is delivered again."""
    retry_after: tuple[timedelta, ...] = (timedelta(milliseconds=100), timedelta(seconds=1), timedelta(seconds=5))
    """The backoff: pauses after failures of the handler, the last repeats.

    Sent with each refusal of an event and not declared as the consumer's own `backoff`: where a consumer has that, the
    server adds it to the pause that a refusal asks for, and takes its first step in place of `ack_wait`.
    """
    inactive_threshold: timedelta = timedelta(seconds=30)
    """When the server drops an ephemeral consumer that nobody asks any more."""
    at_once: int = 256
    """Most events that are asked for, and unanswered, at once."""
    workers: int = 4
    """How many handlers run at once."""
    heartbeat: timedelta = timedelta(seconds=5)
    """How often a waiting request is answered with a sign of life; two missed are a loss."""
    request_for: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.max_deliver < 1 or not self.retry_after:
            raise ValueError("an event must be delivered at least once, and there must be a pause before the next time")
        if self.request_for < 2 * self.heartbeat:
            raise ValueError("a request must outlive two heartbeats")

    @classmethod
    def per_process(cls, name: str, *events: EventKind) -> Subscription:
        """Every process hears every event, from now on: gateways, claims, provisioners."""
        return cls(name=name, events=frozenset(events), is_shared=False)

    @classmethod
    def shared(cls, name: str, *events: EventKind) -> Subscription:
        """Every event to one of the replicas, also what came while none was there: the reconciler."""
        return cls(name=name, events=frozenset(events), is_shared=True)

    def consumer_config(self, consumer: str) -> dict[str, object]:
        """Give the configuration of the consumer, in JetStream's spelling."""
        config: dict[str, object] = {
            "name": consumer,
            "filter_subjects": sorted(filter_subject(event) for event in self.events),
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": nanoseconds(self.ack_wait),
            "max_deliver": self.max_deliver,
            # For all replicas together; one that hangs must not keep the others waiting.
            "max_ack_pending": self.at_once * (4 if self.is_shared else 1),
            "max_waiting": 128,
        }
        if self.is_shared:
            return {**config, "durable_name": consumer, "deliver_policy": "all"}
        return {
            **config,
            "deliver_policy": "new",
            "inactive_threshold": nanoseconds(self.inactive_threshold),
            # A lost one is made anew, so it need not be kept on disk or by several servers.
            "mem_storage": True,
            "num_replicas": 1,
        }
