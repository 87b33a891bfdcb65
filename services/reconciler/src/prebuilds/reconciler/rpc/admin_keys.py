"""AdminService: keys of provisioner daemons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name, read_page
from prebuilds.reconciler.keys import KeyFilter, KeyOrder, Keys
from prebuilds.reconciler.rpc.admin_messages import key_message
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_MAX_TAGS: Final = 20
_MAX_TAG: Final = 64


class KeyMethods(AdminServiceServicer):
    """Keys of provisioner daemons."""

    _keys: Keys

    async def CreateProvisionerKey(
        self, request: pb.CreateProvisionerKeyRequest, context: Context
    ) -> pb.CreateProvisionerKeyResponse:
        """Make a key for daemons."""
        fields, key = Fields(), request.provisioner_key
        order = KeyOrder(
            organization=fields.optional("organization", request.organization),
            name=fields.name("provisioner_key.name", key.name),
            tags=_tags(fields, key.tags),
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        created = await self._keys.create(current_caller(), order)

        return pb.CreateProvisionerKeyResponse(provisioner_key=key_message(created.key), secret=created.secret)

    async def GetProvisionerKey(
        self, request: pb.GetProvisionerKeyRequest, context: Context
    ) -> pb.GetProvisionerKeyResponse:
        """Answer one key."""
        key_id = read_id(request.id)

        row = await self._keys.get(current_caller(), key_id)

        return pb.GetProvisionerKeyResponse(provisioner_key=key_message(row))

    async def ListProvisionerKeys(
        self, request: pb.ListProvisionerKeysRequest, context: Context
    ) -> pb.ListProvisionerKeysResponse:
        """Answer keys, by name."""
        fields = Fields()
        organization = fields.optional("organization", request.organization)
        conditions = fields.filter(request.filter, ("name",))
        wanted = KeyFilter(name=conditions.text("name"), show_revoked=request.show_revoked)
        page = read_page(fields, request, by_name)
        fields.done()

        listed = await self._keys.list(current_caller(), organization, wanted, page)

        return pb.ListProvisionerKeysResponse(
            provisioner_keys=map(key_message, listed.things), next_page_token=listed.next_token
        )

    async def UpdateProvisionerKey(
        self, request: pb.UpdateProvisionerKeyRequest, context: Context
    ) -> pb.UpdateProvisionerKeyResponse:
        """Change what the mask names of a key."""
        fields, key = Fields(), request.provisioner_key
        key_id = fields.id("provisioner_key.id", key.id)
        named = fields.mask(request.update_mask.paths, ("name", "tags"))
        values: dict[str, object] = {}
        if "name" in named:
            values["name"] = fields.name("provisioner_key.name", key.name)
        if "tags" in named:
            values["tags"] = _tags(fields, key.tags)
        fields.done()

        row = await self._keys.update(current_caller(), key_id, values)

        return pb.UpdateProvisionerKeyResponse(provisioner_key=key_message(row))

    async def RevokeProvisionerKey(
        self, request: pb.RevokeProvisionerKeyRequest, context: Context
    ) -> pb.RevokeProvisionerKeyResponse:
        """Make a key no longer good."""
        key_id = read_id(request.id)

        row = await self._keys.revoke(current_caller(), key_id)

        return pb.RevokeProvisionerKeyResponse(provisioner_key=key_message(row))


def _tags(fields: Fields, tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > _MAX_TAGS:
        fields.wrong("provisioner_key.tags", f"must be at most {_MAX_TAGS}")
    for name, value in tags.items():
        field = f"provisioner_key.tags.{name[:_MAX_TAG]}"
        fields.required(field, name)
        fields.at_most(field, name, _MAX_TAG)
        fields.at_most(field, value, _MAX_TAG)
    return dict(tags)
