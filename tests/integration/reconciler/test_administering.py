"""Organisations, members and keys, over gRPC."""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.builders import make_user
from tests.support.reconciling import Client, Reconcilers, refused


def key_request(name: str = "local", **fields: str) -> pb.CreateProvisionerKeyRequest:
    key = admin_pb2.ProvisionerKey(name=name, tags={"host": "local"})
    return pb.CreateProvisionerKeyRequest(provisioner_key=key, **{"organization": "acme", **fields})


async def test_an_organisation_is_made_once(operator: Client) -> None:
    with refused(Reason.NAME_TAKEN):
        await operator.make_organization("acme")

    request = pb.CreateOrganizationRequest(organization=admin_pb2.Organization(name="b"), request_id="r1")
    first = await operator.admin.CreateOrganization(request, metadata=operator.metadata)
    assert await operator.admin.CreateOrganization(request, metadata=operator.metadata) == first
    request.organization.name = "c"
    with refused(Reason.REQUEST_ID_REUSED):
        await operator.admin.CreateOrganization(request, metadata=operator.metadata)


async def test_only_operators_make_organisations(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    await (await reconcilers.client(address)).make_organization()
    owner = await reconcilers.client(address, operator=False, name="owner", roles=[Role.OWNER])

    with refused(Reason.PERMISSION_DENIED):
        await owner.make_organization("mine")
    listed = await owner.admin.ListOrganizations(pb.ListOrganizationsRequest(), metadata=owner.metadata)
    assert [organization.name for organization in listed.organizations] == ["acme"]


async def test_the_secret_of_a_key_is_told_once_and_only_its_digest_is_stored(
    operator: Client, database: Database
) -> None:
    created = await operator.admin.CreateProvisionerKey(key_request(request_id="r1"), metadata=operator.metadata)
    repeated = await operator.admin.CreateProvisionerKey(key_request(request_id="r1"), metadata=operator.metadata)

    prefix, key_id, secret = created.secret.split("_", 2)
    assert (prefix, key_id) == ("pbd", created.provisioner_key.id.replace("-", ""))
    assert repeated.provisioner_key == created.provisioner_key
    assert not repeated.secret
    async with database.transaction("test") as tx:
        stored = (await tx.execute(select(schema.ProvisionerKey.secret_sha256))).scalar_one()
    assert stored == hashlib.sha256(secret.encode()).digest()
    with refused(Reason.NAME_TAKEN):
        await operator.admin.CreateProvisionerKey(key_request(), metadata=operator.metadata)


async def test_a_revoked_key_is_listed_only_when_asked_for(operator: Client) -> None:
    created = await operator.admin.CreateProvisionerKey(key_request(), metadata=operator.metadata)
    revocation = pb.RevokeProvisionerKeyRequest(id=created.provisioner_key.id)

    revoked = await operator.admin.RevokeProvisionerKey(revocation, metadata=operator.metadata)
    again = await operator.admin.RevokeProvisionerKey(revocation, metadata=operator.metadata)

    assert revoked.provisioner_key.HasField("revoke_time")
    assert again == revoked
    listing = pb.ListProvisionerKeysRequest(organization="acme")
    assert not (await operator.admin.ListProvisionerKeys(listing, metadata=operator.metadata)).provisioner_keys
    listing.show_revoked = True
    assert (await operator.admin.ListProvisionerKeys(listing, metadata=operator.metadata)).provisioner_keys


async def test_keys_of_others_do_not_exist(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization("acme")
    await operator.make_organization("other")
    created = await operator.admin.CreateProvisionerKey(key_request(), metadata=operator.metadata)
    everywhere = await operator.admin.CreateProvisionerKey(key_request(organization=""), metadata=operator.metadata)
    stranger = await reconcilers.client(address, operator=False, name="eve", roles=[Role.OWNER], at="other")

    for key in (created, everywhere):
        with refused(Reason.NOT_FOUND):
            await stranger.admin.RevokeProvisionerKey(
                pb.RevokeProvisionerKeyRequest(id=key.provisioner_key.id), metadata=stranger.metadata
            )
    with refused(Reason.INVALID_FIELDS):
        await stranger.admin.CreateProvisionerKey(key_request(organization=""), metadata=stranger.metadata)


async def test_members_are_made_once_and_listed_by_name(operator: Client, database: Database) -> None:
    await make_user(database, "alice")
    request = pb.CreateMemberRequest(
        organization="acme", user="alice", roles=[admin_pb2.ROLE_AUDITOR, admin_pb2.ROLE_MEMBER]
    )

    created = await operator.admin.CreateMember(request, metadata=operator.metadata)

    assert list(created.member.roles) == [admin_pb2.ROLE_MEMBER, admin_pb2.ROLE_AUDITOR]
    assert not created.member.HasField("quota_allowance")
    with refused(Reason.ALREADY_EXISTS):
        await operator.admin.CreateMember(request, metadata=operator.metadata)
    listed = await operator.admin.ListMembers(pb.ListMembersRequest(organization="acme"), metadata=operator.metadata)
    assert [member.user_name for member in listed.members] == ["alice", "root"]
    request.user = "nobody"
    with refused(Reason.NOT_FOUND):
        await operator.admin.CreateMember(request, metadata=operator.metadata)
