"""Values <-> protobuf: organisations, people, keys and what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.struct_pb2 import Struct

from prebuilds.chassis.messages import timestamp
from prebuilds.domain.principals import Role
from prebuilds.reconciler.auditing import ActorKind
from prebuilds.reconciler.queries.views import AuditRow, GroupRow, KeyRow, MemberRow, OrganizationRow, UserRow
from prebuilds.reconciler.rpc.messages import text_of
from prebuilds.v1 import admin_pb2

ROLES: Final = {
    Role.MEMBER: admin_pb2.ROLE_MEMBER,
    Role.TEMPLATE_ADMIN: admin_pb2.ROLE_TEMPLATE_ADMIN,
    Role.AUDITOR: admin_pb2.ROLE_AUDITOR,
    Role.OWNER: admin_pb2.ROLE_OWNER,
}
ACTORS: Final = {
    ActorKind.PERSON: admin_pb2.ACTOR_KIND_PERSON,
    ActorKind.SERVICE: admin_pb2.ACTOR_KIND_SERVICE,
    ActorKind.DAEMON: admin_pb2.ACTOR_KIND_DAEMON,
    ActorKind.AGENT: admin_pb2.ACTOR_KIND_AGENT,
}


def organization_message(row: OrganizationRow) -> admin_pb2.Organization:
    """An organisation."""
    return admin_pb2.Organization(
        id=str(row.id), name=row.name, display_name=row.display_name, create_time=timestamp(row.created_at)
    )


def member_message(row: MemberRow) -> admin_pb2.Member:
    """A member; the roles are in the order of the enum."""
    return admin_pb2.Member(
        organization_id=str(row.organization_id),
        user_id=str(row.user_id),
        user_name=row.user_name,
        roles=sorted(ROLES[role] for role in row.roles),
        group_ids=map(str, row.group_ids),
        quota_used=row.quota_used,
        quota_allowance=row.quota_allowance,
        create_time=timestamp(row.created_at),
    )


def group_message(row: GroupRow) -> admin_pb2.Group:
    """A group."""
    return admin_pb2.Group(
        id=str(row.id),
        organization_id=str(row.organization_id),
        name=row.name,
        quota_allowance=row.quota_allowance,
        member_count=row.member_count,
        is_system=row.is_system,
        create_time=timestamp(row.created_at),
    )


def user_message(row: UserRow) -> admin_pb2.User:
    """A user."""
    return admin_pb2.User(
        id=str(row.id),
        name=row.name,
        issuer=row.issuer,
        subject=row.subject,
        is_system=row.is_system,
        create_time=timestamp(row.created_at),
        last_seen_time=timestamp(row.last_seen_at),
        delete_time=timestamp(row.deleted_at),
    )


def key_message(row: KeyRow) -> admin_pb2.ProvisionerKey:
    """A provisioner key, without its secret."""
    return admin_pb2.ProvisionerKey(
        id=str(row.id),
        organization_id=text_of(row.organization_id),
        name=row.name,
        tags=row.tags,
        create_time=timestamp(row.created_at),
        revoke_time=timestamp(row.revoked_at),
    )


def audit_message(row: AuditRow) -> admin_pb2.AuditEvent:
    """What somebody did."""
    kind, _, actor_id = row.principal.partition(":")
    details = Struct()
    details.update(row.details)
    return admin_pb2.AuditEvent(
        id=str(row.id),
        organization_id=text_of(row.organization_id),
        event_time=timestamp(row.created_at),
        actor_kind=ACTORS[ActorKind(kind)],
        actor_id=actor_id,
        actor_name=row.principal_name,
        action=row.action,
        resource_type=row.resource,
        resource_id=str(row.resource_id),
        resource_name=row.resource_name,
        details=details,
    )


def roles_of(sent: Iterable[int]) -> list[Role] | None:
    """The roles of a request, in the order of the enum; None where one is not valid or there twice."""
    known: Mapping[int, Role] = {message: role for role, message in ROLES.items()}
    given = sorted(sent)
    if len(set(given)) != len(given) or any(role not in known for role in given):
        return None
    return [known[role] for role in given]
