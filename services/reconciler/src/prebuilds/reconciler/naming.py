"""Who is meant by a name or an id that somebody wrote, and who the system user is to people: not theirs to change."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from prebuilds.domain.names import is_id
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.queries.users import NamedUser


def meant_by(named: str, found: Collection[NamedUser]) -> list[NamedUser]:
    """Tell who of these goes by that name or id; somebody else's name is never the system user's."""
    by_id = UUID(named) if is_id(named) else None
    meant = [user for user in found if (user.id == by_id if by_id else user.name == named)]
    return [user for user in meant if not user.is_system] or meant


def one_named(named: str, found: Collection[NamedUser], *, kind: str = "user", field: str = "user") -> NamedUser:
    """Tell who of these is meant; raises Refusal NOT_FOUND.

    Refuses INVALID_FIELDS where the name is not one user's alone; `field` is where the caller wrote it.
    """
    meant = meant_by(named, found)
    if not meant:
        raise Refusal.not_found(kind, named)
    if len(meant) > 1:
        raise Refusal.invalid(Violation(field, "is the name of several people; give the id"))
    return meant[0]


def refuse_system(user: NamedUser) -> None:
    """Refuse SYSTEM_OWNED for the system user: where it takes part is the system's own matter."""
    if user.is_system:
        raise system_owned(user.name)


def system_owned(name: str) -> Refusal:
    """Give the refusal of what somebody wants to do to the system user."""
    return Refusal(Reason.SYSTEM_OWNED, f"user {name!r} is the system's own")
