"""Who may do what: role x resource x action for people, and one row per method for everybody.

Deny by default, twice: a method without a row keeps the server from starting, and what a role's table does not name is
refused. A row is the coarse check, made before the method runs: somebody without the right in any organisation is
turned away. The method itself narrows it to the organisation and the owner at hand through `caller.Caller`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.principals import Agent, Daemon, Person, Principal, Role, Service, ServiceName


class Resource(StrEnum):
    """What can be acted upon."""

    ORGANIZATION = "organization"
    MEMBER = "member"
    GROUP = "group"
    USER = "user"
    PROVISIONER_KEY = "provisioner_key"
    AUDIT_EVENT = "audit_event"
    DEAD_LETTER = "dead_letter"
    TEMPLATE = "template"
    POOL = "pool"
    WORKSPACE = "workspace"
    PREBUILT_WORKSPACE = "prebuilt_workspace"
    CLAIM = "claim"
    WAITING = "waiting"
    NOTIFICATION = "notification"
    JOB = "job"


class Action(StrEnum):
    """What can be done to it."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"


class Extent(IntEnum):
    """How far a right reaches within an organisation; the larger includes the smaller."""

    OWN = 1
    ANY = 2


Permission = tuple[Resource, Action]
Rights = Mapping[Permission, Extent]

_ALL: Final = tuple(Action)


def _rights(extent: Extent, rows: Mapping[Resource, Iterable[Action]]) -> dict[Permission, Extent]:
    return {(resource, action): extent for resource, actions in rows.items() for action in actions}


_READ: Final = (Action.READ,)

# What belongs to a person stays theirs whatever the roles of others; an operator alone goes further.
_MEMBER: Final = _rights(
    Extent.ANY,
    {
        Resource.ORGANIZATION: _READ,
        Resource.GROUP: _READ,
        Resource.USER: _READ,
        Resource.TEMPLATE: _READ,
        Resource.POOL: _READ,
    },
) | _rights(
    Extent.OWN,
    {
        Resource.MEMBER: _READ,
        Resource.WORKSPACE: _ALL,
        Resource.CLAIM: _READ,
        Resource.WAITING: _READ,
        Resource.JOB: (Action.READ, Action.UPDATE),
        Resource.NOTIFICATION: (Action.READ, Action.UPDATE),
    },
)
_TEMPLATE_ADMIN: Final = _rights(
    Extent.ANY,
    {
        Resource.TEMPLATE: _ALL,
        Resource.POOL: _ALL,
        Resource.WORKSPACE: _READ,
        Resource.PREBUILT_WORKSPACE: (Action.READ, Action.UPDATE, Action.DELETE),
        Resource.CLAIM: _READ,
        Resource.WAITING: _READ,
        Resource.JOB: _READ,
    },
)
_IN_AN_ORGANIZATION: Final = tuple(resource for resource in Resource if resource is not Resource.NOTIFICATION)
_AUDITOR: Final = _rights(Extent.ANY, dict.fromkeys(_IN_AN_ORGANIZATION, _READ))
# Organisations are made and removed by operators, and users belong to no single organisation.
_OPERATORS_ONLY: Final = frozenset(
    {
        *((Resource.ORGANIZATION, action) for action in (Action.CREATE, Action.DELETE)),
        *((Resource.USER, action) for action in (Action.CREATE, Action.UPDATE, Action.DELETE)),
    }
)
_OWNER: Final = {
    permission: extent
    for permission, extent in _rights(Extent.ANY, dict.fromkeys(_IN_AN_ORGANIZATION, _ALL)).items()
    if permission not in _OPERATORS_ONLY
}

ROLE_TABLE: Final[Mapping[Role, Rights]] = {
    Role.MEMBER: _MEMBER,
    Role.TEMPLATE_ADMIN: _MEMBER | _TEMPLATE_ADMIN,
    Role.AUDITOR: _MEMBER | _AUDITOR,
    Role.OWNER: _MEMBER | _OWNER,
}
"""What each role may do in its organisation. What it does not name is refused."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A row of the access table: who may call a method. `people` names permissions of which any one suffices."""

    people: tuple[Permission, ...] = ()
    everybody: bool = False
    """Every person, of whatever organisation or of none."""
    agents: bool = False
    daemons: bool = False
    services: frozenset[ServiceName] = frozenset()

    def admits(self, principal: Principal) -> bool:
        """Whether this caller may call the method at all."""
        match principal:
            case Person():
                return self.everybody or any(may_somewhere(principal, permission) for permission in self.people)
            case Agent():
                return self.agents
            case Daemon():
                return self.daemons
            case Service(name):
                return name in self.services
            case _:
                assert_never(principal)


AccessTable = Mapping[str, Grant]
"""Full method name (`/prebuilds.v1.PoolService/GetPool`) -> row."""


def people(*permissions: Permission, services: Iterable[ServiceName] = ()) -> Grant:
    """A row for people with any of the permissions, and for the services named."""
    return Grant(people=permissions, services=frozenset(services))


def signed_in() -> Grant:
    """A row for every person; the method answers only what that person may see."""
    return Grant(everybody=True)


def agents() -> Grant:
    """A row for agents alone."""
    return Grant(agents=True)


def daemons() -> Grant:
    """A row for provisioner daemons alone."""
    return Grant(daemons=True)


def services(*names: ServiceName) -> Grant:
    """A row for the services named alone."""
    return Grant(services=frozenset(names))


def extent(person: Person, organization_id: OrganizationId, permission: Permission) -> Extent | None:
    """How far the person's right reaches in that organisation; None where there is none."""
    if person.is_operator:
        return Extent.ANY
    roles = person.roles.get(organization_id, ())
    return max((right for role in roles if (right := ROLE_TABLE[role].get(permission)) is not None), default=None)


def may_somewhere(person: Person, permission: Permission) -> bool:
    """Whether the person has the right in any organisation, if only to what is their own."""
    return person.is_operator or any(
        permission in ROLE_TABLE[role] for roles in person.roles.values() for role in roles
    )


def rows_missing(methods: Iterable[str], table: AccessTable) -> list[str]:
    """The methods that have no row, in order of their names."""
    return sorted(method for method in methods if method not in table)
