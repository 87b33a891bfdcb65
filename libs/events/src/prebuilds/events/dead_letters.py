"""Dead letters: events whose handler failed at their last delivery, kept in `PREBUILDS_DLQ` with the cause.

Subject `prebuilds.dlq.v1.<consumer>.<event>.<id>`, body and headers as they came; what happened is in further headers.
A dead letter loses nothing that mattered, for the event was a hint; it shows a handler that needs repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from prebuilds.chassis.logs import clean_text
from prebuilds.events.bodies import MESSAGE_ID
from prebuilds.events.jetstream import publish
from prebuilds.events.streams import DEAD_LETTER_PREFIX
from prebuilds.events.subjects import PREFIX

SUBJECT: Final = "Prebuilds-Subject"
"""The event's own subject."""
EVENT_ID: Final = "Prebuilds-Event-Id"
"""Its own message id; a replay needs another, or JetStream takes it for a repetition."""
CONSUMER: Final = "Prebuilds-Consumer"
CAUSE: Final = "Prebuilds-Cause"
DELIVERIES: Final = "Prebuilds-Deliveries"
FAILED_AT: Final = "Prebuilds-Failed-At"

_MAX_CAUSE: Final = 500  # characters


async def bury(
    client: Client, event: Msg, *, consumer: str, cause: BaseException, deliveries: int, failed_at: datetime
) -> None:
    """Keep this event as a dead letter; a second burial by the same consumer is no second letter."""
    own: Mapping[str, str] = event.headers or {}
    event_id = own.get(MESSAGE_ID, "")
    headers = {
        **own,
        MESSAGE_ID: f"{event_id or event.reply}.{consumer}",
        SUBJECT: event.subject,
        EVENT_ID: event_id,
        CONSUMER: consumer,
        CAUSE: describe(cause),
        DELIVERIES: str(deliveries),
        FAILED_AT: failed_at.isoformat(),
    }
    await publish(client, dead_letter_subject(consumer, event.subject), event.data, headers)


def dead_letter_subject(consumer: str, subject: str) -> str:
    """Spell where a consumer's dead letter of this subject goes."""
    return f"{DEAD_LETTER_PREFIX}.{consumer}.{subject.removeprefix(f'{PREFIX}.')}"


def describe(cause: BaseException) -> str:
    """Say what happened in one line, without secrets."""
    text = " ".join(clean_text(f"{type(cause).__name__}: {cause}").split())
    return text[:_MAX_CAUSE].encode("ascii", "replace").decode()
