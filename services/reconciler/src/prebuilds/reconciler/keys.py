"""Keys of provisioner daemons: the secret is shown once, and only its digest is stored (design section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.identity.daemon_keys import make_daemon_key
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.access import actor_of, check_access, is_operator, organization_for
from prebuilds.reconciler.administering import id_of_request
from prebuilds.reconciler.queries.keys import find_keys, insert_key, mark_revoked
from prebuilds.reconciler.queries.views import KeyRow
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

CREATE_KEY: Final = "AdminService.CreateProvisionerKey"


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key that somebody wants."""

    organization: str
    """Empty: for the jobs of all organisations."""
    name: str
    tags: Mapping[str, str]
    request_id: str


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key and its secret."""

    key: KeyRow
    secret: str
    """Empty in a repeated answer: it is kept nowhere."""


class Keys:
    """Makes and revokes keys."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: KeyOrder) -> CreatedKey:
        """Make a key. Refuses NAME_TAKEN, REQUEST_ID_REUSED, PERMISSION_DENIED."""

        async def work(tx: Transaction) -> CreatedKey:
            organization_id = await scope_of_keys(tx, caller, order.organization, Action.CREATE)
            key_id = ProvisionerKeyId(id_of_request(caller, CREATE_KEY, str(organization_id), order.request_id))
            new = make_daemon_key(key_id)
            made = await insert_key(
                tx,
                key_id,
                organization_id=organization_id,
                name=order.name,
                tags=order.tags,
                secret_sha256=new.secret_sha256,
            )
            key = (await find_keys(tx, id_=key_id))[0]
            if not made:
                if (key.name, dict(key.tags)) != (order.name, dict(order.tags)):
                    raise Refusal(
                        Reason.REQUEST_ID_REUSED, f"request id {order.request_id!r} was used for another request"
                    )
                return CreatedKey(key, "")
            entry = AuditEntry(
                actor_of(caller), "provisioner_key.create", "provisioner_key", key.id, key.name, organization_id
            )
            await record_deed(tx, entry)
            return CreatedKey(key, new.token)

        return await self._database.run("create provisioner key", work)

    async def revoke(self, caller: Caller, key_id: UUID) -> KeyRow:
        """Make a key no longer good; one that is revoked stays as it is."""

        async def work(tx: Transaction) -> KeyRow:
            key = await key_for(tx, caller, key_id, Action.DELETE)
            if key.revoked_at is not None:
                return key
            await mark_revoked(tx, key.id)
            entry = AuditEntry(
                actor_of(caller), "provisioner_key.revoke", "provisioner_key", key.id, key.name, key.organization_id
            )
            await record_deed(tx, entry)
            return (await find_keys(tx, id_=key_id))[0]

        return await self._database.run("revoke provisioner key", work)


async def key_for(tx: Transaction, caller: Caller, key_id: UUID, action: Action) -> KeyRow:
    """The key of that id; one for all organisations exists for operators only."""
    found = await find_keys(tx, id_=key_id)
    if not found or (found[0].organization_id is None and not is_operator(caller)):
        raise Refusal.not_found("provisioner key", str(key_id))
    organization_id = found[0].organization_id
    if organization_id is not None:
        check_access(caller, organization_id, Resource.PROVISIONER_KEY, action, kind="provisioner key", id_=key_id)
    return found[0]


async def scope_of_keys(tx: Transaction, caller: Caller, named: str, action: Action) -> OrganizationId | None:
    """The organisation whose keys are meant; None where no one is named, which only operators may do."""
    if named:
        return (await organization_for(tx, caller, named, Resource.PROVISIONER_KEY, action)).id
    if is_operator(caller):
        return None
    raise Refusal.invalid(Violation("organization", "is required"))
