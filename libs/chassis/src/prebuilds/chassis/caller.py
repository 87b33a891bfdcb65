"""The caller of the present RPC, and what it may see and do: the fine check that each method makes."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from prebuilds.chassis import policy
from prebuilds.chassis.policy import Action, Extent, Resource
from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.principals import Agent, Daemon, Person, Principal, Service
from prebuilds.domain.refusals import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Scope:
    """What a query may return: all of some organisations, in others only what the user owns."""

    everywhere: bool
    """True for operators and services: no organisation is closed to them."""
    full: frozenset[OrganizationId] = frozenset()
    own: frozenset[OrganizationId] = frozenset()
    user_id: UserId | None = None

    def covers(self, organization_id: OrganizationId, owner_id: UserId | None = None) -> bool:
        """Whether a row of that organisation and owner lies within."""
        if self.everywhere or organization_id in self.full:
            return True
        return organization_id in self.own and owner_id is not None and owner_id == self.user_id


_EVERYWHERE = Scope(everywhere=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called."""

    principal: Principal

    @property
    def key(self) -> str:
        """The caller in one word, for request ids, audit and logs: `person:<id>`, `agent:<id>`, `service:claims`."""
        match self.principal:
            case Person(user_id=user_id):
                return f"person:{user_id}"
            case Agent(agent_id=agent_id):
                return f"agent:{agent_id}"
            case Daemon(key_id=key_id):
                return f"daemon:{key_id}"
            case Service(name=name):
                return f"service:{name}"

    def person(self) -> Person:
        """The person who calls; anybody else is refused."""
        if isinstance(self.principal, Person):
            return self.principal
        raise _denied("only people may do this")

    def agent(self) -> Agent:
        """The agent that calls; anybody else is refused."""
        if isinstance(self.principal, Agent):
            return self.principal
        raise _denied("only agents may do this")

    def daemon(self) -> Daemon:
        """The provisioner daemon that calls; anybody else is refused."""
        if isinstance(self.principal, Daemon):
            return self.principal
        raise _denied("only provisioner daemons may do this")

    def service(self) -> Service:
        """The service that calls; anybody else is refused."""
        if isinstance(self.principal, Service):
            return self.principal
        raise _denied("only services may do this")

    def organizations_for(self, resource: Resource, action: Action) -> Scope:
        """Where the caller may do this, for a query to be scoped by."""
        match self.principal:
            case Service():
                return _EVERYWHERE
            case Person(is_operator=True):
                return _EVERYWHERE
            case Person(user_id=user_id, roles=roles) as person:
                reach = {id_: policy.extent(person, id_, (resource, action)) for id_ in roles}
                return Scope(
                    everywhere=False,
                    full=frozenset(id_ for id_, extent in reach.items() if extent is Extent.ANY),
                    own=frozenset(id_ for id_, extent in reach.items() if extent is Extent.OWN),
                    user_id=user_id,
                )
            case Agent() | Daemon():
                raise _denied(f"may not {action} {resource}")

    def require(
        self,
        organization_id: OrganizationId,
        resource: Resource,
        action: Action,
        *,
        owner_id: UserId | None = None,
        name: str = "",
    ) -> None:
        """Raise unless the caller may do this there: NOT_FOUND for who is no member, else PERMISSION_DENIED.

        `owner_id` is whose thing it is, where rights may reach only to one's own; `name` is the organisation as the
        caller named it.
        """
        match self.principal:
            case Service():
                return
            case Person() as person:
                if not person.is_operator and organization_id not in person.roles:
                    raise Refusal.not_found("organization", name or str(organization_id))
                extent = policy.extent(person, organization_id, (resource, action))
                if extent is Extent.ANY or (extent is Extent.OWN and owner_id == person.user_id):
                    return
            case Agent() | Daemon():
                pass
        raise _denied(f"may not {action} {resource}")

    def may(
        self, organization_id: OrganizationId, resource: Resource, action: Action, *, owner_id: UserId | None = None
    ) -> bool:
        """Whether `require` would pass; for a right that falls back to another one."""
        try:
            self.require(organization_id, resource, action, owner_id=owner_id)
        except Refusal:
            return False
        return True


_current: ContextVar[Caller] = ContextVar("prebuilds_caller")


def current_caller() -> Caller:
    """The caller of the RPC that this task serves; LookupError outside of one."""
    return _current.get()


def set_caller(caller: Caller) -> None:
    """Set the caller for this task and what it starts; for the interceptor and for tests."""
    _current.set(caller)


def _denied(message: str) -> Refusal:
    return Refusal(Reason.PERMISSION_DENIED, message)
