"""Values as protobuf's own messages."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment; unset where there is none."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def duration(length: timedelta | None) -> Duration | None:
    """A length of time; unset where there is none."""
    if length is None:
        return None
    message = Duration()
    message.FromTimedelta(length)
    return message
