"""Who calls: people, agents, provisioner daemons and services each prove themselves in their own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from prebuilds.domain.ids import AgentId, OrganizationId, ProvisionerKeyId, UserId


class Role(StrEnum):
    """What a person is in one organisation."""

    MEMBER = "member"
    TEMPLATE_ADMIN = "template-admin"
    AUDITOR = "auditor"
    OWNER = "owner"


class ServiceName(StrEnum):
    """The servers of the system, as they name themselves to each other."""

    RECONCILER = "reconciler"
    CLAIMS = "claims"
    AGENT_GATEWAY = "agent-gateway"
    PROVISIONER = "provisioner"


@dataclass(frozen=True, slots=True)
class Person:
    """A signed-in user with the roles held in each organisation; an operator may do everything everywhere."""

    user_id: UserId
    name: str
    roles: Mapping[OrganizationId, frozenset[Role]]
    is_operator: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """The holder of an agent's token; epoch and revocation are checked against Postgres where it is used."""

    agent_id: AgentId
    token: str


@dataclass(frozen=True, slots=True)
class Daemon:
    """The holder of a provisioner key; `organization_id` is None for a key that serves all organisations."""

    key_id: ProvisionerKeyId
    organization_id: OrganizationId | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Service:
    """Another server of this system."""

    name: ServiceName


Principal = Person | Agent | Daemon | Service


@dataclass(frozen=True, slots=True)
class AssertedRoles:
    """Roles that an authoritative issuer's token names: by organisation *name*, in place of the stored ones."""

    organizations: Mapping[str, frozenset[Role]]
    is_operator: bool = False


@dataclass(frozen=True, slots=True)
class StoredDaemonKey:
    """A provisioner key as Postgres has it; the secret itself is known to the daemon alone."""

    key_id: ProvisionerKeyId
    secret_sha256: bytes
    organization_id: OrganizationId | None
    tags: Mapping[str, str]
