"""Organisations, members and keys, over gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import select

from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId, TemplateId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.people import delete_organization, lock_out
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.workspaces.lifecycle import NewWorkspace, create_workspace
from prebuilds.v1 import admin_pb2, pool_service_pb2, template_service_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.builders import make_user
from tests.support.people import Team
from tests.support.reconciling import ORGANIZATION, Client, Reconcilers, make_manifest, refused
from tests.support.waiting import until_waiting


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


async def update(client: Client, organization: admin_pb2.Organization, *paths: str) -> admin_pb2.Organization:
    request = pb.UpdateOrganizationRequest(organization=organization)
    request.update_mask.paths.extend(paths)
    return (await client.admin.UpdateOrganization(request, metadata=client.metadata)).organization


async def delete(client: Client, organization: admin_pb2.Organization) -> None:
    await client.admin.DeleteOrganization(pb.DeleteOrganizationRequest(id=organization.id), metadata=client.metadata)


async def get(client: Client, named: str) -> admin_pb2.Organization:
    return (
        await client.admin.GetOrganization(pb.GetOrganizationRequest(id=named), metadata=client.metadata)
    ).organization


async def test_an_organisation_is_found_by_name_and_by_id(team: Team) -> None:
    member = await team.client("ann", Role.MEMBER)

    for named in (ORGANIZATION, team.organization.id, team.organization.id.upper()):
        assert await get(member, named) == team.organization
    with refused(Reason.NOT_FOUND):
        await get(member, "other")
    with refused(Reason.INVALID_FIELDS):
        await get(member, "")


async def test_what_the_mask_names_of_an_organisation_is_changed_and_written_down(team: Team) -> None:
    await team.operator.make_organization("other")
    owner = await team.client("owner", Role.OWNER)
    wanted = admin_pb2.Organization(id=team.organization.id, name="acme", display_name="Acme, Inc.")

    shown = await update(owner, wanted, "name", "display_name")
    wanted.name, wanted.display_name = "acme-2", ""
    renamed = await update(owner, wanted, "name")

    assert (shown.name, shown.display_name) == ("acme", "Acme, Inc.")
    assert (renamed.name, renamed.display_name) == ("acme-2", "Acme, Inc.")
    assert await team.deeds("organization.update") == [
        ("acme", {"display_name": {"from": "", "to": "Acme, Inc."}}),
        ("acme-2", {"name": {"from": "acme", "to": "acme-2"}}),
    ]
    wanted.name = "other"
    with refused(Reason.NAME_TAKEN):
        await update(team.operator, wanted, "name")
    wanted.name = "A b"
    with refused(Reason.INVALID_FIELDS):
        await update(team.operator, wanted, "name")
    with refused(Reason.INVALID_FIELDS):
        await update(team.operator, wanted, "create_time")


async def test_owners_change_their_organisation_and_operators_alone_delete_it(team: Team) -> None:
    await team.operator.make_organization("other")
    owner = await team.client("owner", Role.OWNER)
    auditor = await team.client("ada", Role.AUDITOR)
    stranger = await team.client("eve", Role.OWNER, at="other")

    with refused(Reason.PERMISSION_DENIED):
        await update(auditor, team.organization, "display_name")
    with refused(Reason.NOT_FOUND):
        await update(stranger, team.organization, "display_name")
    with refused(Reason.PERMISSION_DENIED):
        await delete(owner, team.organization)


async def test_an_organisation_with_workspaces_cannot_be_deleted(team: Team, database: Database) -> None:
    pushed = await team.operator.push(make_manifest(instances=0))
    async with database.transaction("test") as tx:
        await create_workspace(tx, await workspace(team, database, pushed.template.id))

    with refused(Reason.ORGANIZATION_IN_USE):
        await delete(team.operator, team.organization)
    assert await get(team.operator, ORGANIZATION) == team.organization


async def test_a_deleted_organisation_is_gone_with_its_templates_and_keys(team: Team, database: Database) -> None:
    pushed = await team.operator.push(make_manifest(instances=0))
    created = await team.operator.admin.CreateProvisionerKey(key_request(), metadata=team.operator.metadata)
    key_id = ProvisionerKeyId(UUID(created.provisioner_key.id))
    directory = StoredDirectory(database)
    assert await directory.daemon(key_id)

    await delete(team.operator, team.organization)

    with refused(Reason.NOT_FOUND):
        await get(team.operator, team.organization.id)
    with refused(Reason.NOT_FOUND):
        await delete(team.operator, team.organization)
    with refused(Reason.NOT_FOUND):
        await team.operator.admin.GetProvisionerKey(
            pb.GetProvisionerKeyRequest(id=str(key_id)), metadata=team.operator.metadata
        )
    services, metadata = team.operator, team.operator.metadata
    preset_id = pushed.presets[0].id
    for read in (
        services.templates.GetTemplate(
            template_service_pb2.GetTemplateRequest(id=pushed.template.id), metadata=metadata
        ),
        services.templates.GetTemplateVersion(
            template_service_pb2.GetTemplateVersionRequest(id=pushed.version.id), metadata=metadata
        ),
        services.templates.GetPreset(template_service_pb2.GetPresetRequest(id=preset_id), metadata=metadata),
        services.pools.GetPool(pool_service_pb2.GetPoolRequest(id=preset_id), metadata=metadata),
    ):
        with refused(Reason.NOT_FOUND):
            await read
    assert await directory.daemon(key_id) is None
    async with database.transaction("test") as tx:
        assert await tx.scalar(select(schema.Template.deleted).where(schema.Template.id == UUID(pushed.template.id)))
    assert await team.deeds("organization.delete") == [("acme", {})]
    assert (await team.operator.make_organization(ORGANIZATION)).id != team.organization.id


async def workspace(team: Team, database: Database, template_id: str) -> NewWorkspace:
    """What somebody wants in the organisation."""
    async with database.transaction("test") as tx:
        owner_id = await tx.scalar(select(schema.User.id).where(schema.User.name == "root"))
    assert owner_id is not None
    return NewWorkspace(
        OrganizationId(UUID(team.organization.id)),
        UserId(owner_id),
        "mine",
        TemplateId(UUID(template_id)),
        timedelta(hours=1),
        autostart="",
    )


async def test_a_workspace_that_is_being_made_keeps_its_organisation(
    team: Team, database: Database, database_url: str
) -> None:
    pushed = await team.operator.push(make_manifest(instances=0))
    new = await workspace(team, database, pushed.template.id)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await create_workspace(tx, new)
        deleting = asyncio.ensure_future(delete(team.operator, team.organization))
        await until_waiting(watching)

    with refused(Reason.ORGANIZATION_IN_USE):
        await deleting


async def test_no_workspace_is_made_in_an_organisation_that_is_being_deleted(
    team: Team, database: Database, database_url: str
) -> None:
    pushed = await team.operator.push(make_manifest(instances=0))
    new = await workspace(team, database, pushed.template.id)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await lock_out(tx, new.organization_id)
        await delete_organization(tx, new.organization_id)
        making = asyncio.ensure_future(database.run("test", lambda other: create_workspace(other, new)))
        await until_waiting(watching)

    with pytest.raises(Refusal) as caught:
        await making
    assert caught.value.reason is Reason.NOT_FOUND


async def test_a_keys_name_and_tags_are_changed_and_written_down(team: Team) -> None:
    created = await team.operator.admin.CreateProvisionerKey(key_request(), metadata=team.operator.metadata)
    owner = await team.client("owner", Role.OWNER)
    auditor = await team.client("ada", Role.AUDITOR)
    wanted = admin_pb2.ProvisionerKey(id=created.provisioner_key.id, name="far", tags={"host": "b"})
    request = pb.UpdateProvisionerKeyRequest(provisioner_key=wanted)
    request.update_mask.paths.extend(["name", "tags"])

    with refused(Reason.PERMISSION_DENIED):
        await auditor.admin.UpdateProvisionerKey(request, metadata=auditor.metadata)
    updated = (await owner.admin.UpdateProvisionerKey(request, metadata=owner.metadata)).provisioner_key

    assert (updated.name, dict(updated.tags)) == ("far", {"host": "b"})
    reading = pb.GetProvisionerKeyRequest(id=updated.id)
    assert (await auditor.admin.GetProvisionerKey(reading, metadata=auditor.metadata)).provisioner_key == updated
    assert await team.deeds("provisioner_key.update") == [
        ("far", {"name": {"from": "local", "to": "far"}, "tags": {"from": {"host": "local"}, "to": {"host": "b"}}}),
    ]
    await team.operator.admin.CreateProvisionerKey(key_request(), metadata=team.operator.metadata)
    request.provisioner_key.name = "local"
    with refused(Reason.NAME_TAKEN):
        await owner.admin.UpdateProvisionerKey(request, metadata=owner.metadata)
    request.provisioner_key.tags.update({str(number): "x" for number in range(20)})
    with refused(Reason.INVALID_FIELDS):
        await owner.admin.UpdateProvisionerKey(request, metadata=owner.metadata)


async def test_a_repeated_request_for_a_key_gets_it_also_once_it_was_renamed(team: Team) -> None:
    request = key_request(request_id="r1")
    created = await team.operator.admin.CreateProvisionerKey(request, metadata=team.operator.metadata)
    wanted = admin_pb2.ProvisionerKey(id=created.provisioner_key.id, name="far")
    renaming = pb.UpdateProvisionerKeyRequest(provisioner_key=wanted)
    renaming.update_mask.paths.append("name")
    renamed = await team.operator.admin.UpdateProvisionerKey(renaming, metadata=team.operator.metadata)

    repeated = await team.operator.admin.CreateProvisionerKey(request, metadata=team.operator.metadata)

    assert repeated.provisioner_key == renamed.provisioner_key
    assert not repeated.secret
    request.provisioner_key.tags["host"] = "b"
    with refused(Reason.REQUEST_ID_REUSED):
        await team.operator.admin.CreateProvisionerKey(request, metadata=team.operator.metadata)


async def test_no_organisation_has_a_name_of_more_than_200_characters(operator: Client) -> None:
    with refused(Reason.INVALID_FIELDS):
        await operator.admin.CreateProvisionerKey(key_request(organization="x" * 201), metadata=operator.metadata)
    with refused(Reason.INVALID_FIELDS):
        await operator.admin.ListProvisionerKeys(
            pb.ListProvisionerKeysRequest(organization="x" * 201), metadata=operator.metadata
        )
