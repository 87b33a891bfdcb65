"""How both ends of a gRPC connection find out that the other is gone; servers and clients read it here alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

PING_EVERY: Final = timedelta(seconds=30)
"""How often each end pings, also while no call is open or a stream sends nothing for hours."""

PING_ANSWERED_WITHIN: Final = timedelta(seconds=10)
"""After this without an answer the connection is closed."""

PINGS_ALLOWED_EVERY: Final = timedelta(seconds=10)
"""A server closes connections that ping more often; well below `PING_EVERY`, for what the network bunches up."""


def milliseconds(length: timedelta) -> int:
    """Give a length of time as gRPC's options want it."""
    return length // timedelta(milliseconds=1)
