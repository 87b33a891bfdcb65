"""What broke, told apart: exceptions of Postgres and its driver -> refusals (style section 3, *Faults*).

Pure. A refusal's message is fixed text: no SQL, parameters, addresses or anything else that a driver put in its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, TypeAlias

import psycopg
from psycopg import errors

from prebuilds.domain.refusals import Reason, Refusal

Fault: TypeAlias = psycopg.Error
"""What a statement raises when it fails, for who can go on without what it was to do."""

RETRY_AFTER: Final = timedelta(seconds=1)
"""When a caller may ask again after the database was away."""

_GONE_CLASSES: Final = ("08", "25P03", "25P04", "53", "57P", "58")
"""SQLSTATE beginnings: connection, transactions ended since they stood still, resources (also full disks and too many
connections), shutdown, system errors."""


def refusal_for(exception: BaseException) -> Refusal | None:
    """Give the refusal that this exception is for a caller; None for everything that is no fault of the database."""
    match exception:
        case errors.DeadlockDetected() | errors.SerializationFailure():
            return Refusal(Reason.TRANSACTION_CONFLICT, "too many concurrent changes of the same things")
        case errors.QueryCanceled() if not _asked_for_by_an_operator(exception):
            return Refusal(Reason.DEADLINE_EXCEEDED, "the database did not answer in time")
        case psycopg.Error() if lost_connection(exception):
            return Refusal(Reason.DEPENDENCY_UNAVAILABLE, "the database is not available", retry_after=RETRY_AFTER)
        case _:
            return None


def is_conflict(exception: BaseException | None) -> bool:
    """Whether the same transaction may succeed when it is run again from its beginning."""
    return isinstance(exception, (errors.DeadlockDetected, errors.SerializationFailure))


def lost_connection(exception: BaseException) -> bool:
    """Whether the database, the way to it, or a free connection was missing; connection-pool timeouts count."""
    if not isinstance(exception, psycopg.Error):
        return False
    if exception.sqlstate is None:
        return isinstance(exception, psycopg.OperationalError)
    # A server that has become a replica behind our back is no longer the one that we were connected to.
    return exception.sqlstate.startswith(_GONE_CLASSES) or isinstance(exception, errors.ReadOnlySqlTransaction)


def constraint_of(exception: psycopg.Error) -> str | None:
    """Name the constraint or unique index that refused a row, so that it becomes a refusal beside its statement."""
    return exception.diag.constraint_name


def _asked_for_by_an_operator(exception: psycopg.Error) -> bool:
    """57014 is a statement's timeout or a person's pg_cancel_backend; only the text tells them apart."""
    return "user request" in (exception.diag.message_primary or "")
