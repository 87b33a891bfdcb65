"""Keys of provisioner daemons: the secret is shown once, and only its digest is stored (design section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.identity.daemon_keys import make_daemon_key
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.access import actor_of, check_access, is_operator, organization_for
from prebuilds.reconciler.queries.keys import find_keys, insert_key, lock_key, mark_revoked, update_key
from prebuilds.reconciler.queries.people import keep_organization
from prebuilds.reconciler.queries.views import KeyRow
from prebuilds.reconciler.request_ids import id_of_request
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit_or_answer, fingerprint
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


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which provisioner keys of an organisation; what is None does not matter."""

    name: str | None = None
    show_revoked: bool = False


class Keys:
    """What people do with keys."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: KeyOrder) -> CreatedKey:
        """Make a key. Refuses NAME_TAKEN, REQUEST_ID_REUSED, PERMISSION_DENIED.

        A repetition gets the key without its secret. Where no organisation keeps the request, the id follows from it.
        """

        async def work(tx: Transaction) -> CreatedKey:
            organization_id = await scope_of_keys(tx, caller, order.organization, Action.CREATE)
            key_id = ProvisionerKeyId(uuid4())
            if organization_id is None:
                key_id = ProvisionerKeyId(id_of_request(caller, CREATE_KEY, order.request_id))
            else:
                request = RequestKey(organization_id, caller.key, CREATE_KEY, order.request_id)
                content = fingerprint({"name": order.name, "tags": dict(order.tags)})
                first = await admit_or_answer(tx, request, content, {"key_id": str(key_id)})
                await keep_organization(tx, organization_id)
                if first is not None:
                    return CreatedKey((await find_keys(tx, id_=UUID(first["key_id"])))[0], "")
            new = make_daemon_key(key_id)
            made = await insert_key(
                tx,
                key_id,
                organization_id=organization_id,
                name=order.name,
                tags=order.tags,
                secret_sha256=new.secret_sha256,
            )
            (key,) = await find_keys(tx, id_=key_id)
            if not made:
                if (key.name, dict(key.tags)) != (order.name, dict(order.tags)):
                    raise Refusal(
                        Reason.REQUEST_ID_REUSED, f"request id {order.request_id!r} was used for another request"
                    )
                return CreatedKey(key, "")
            await _record(tx, caller, "create", key, {"tags": dict(key.tags)})
            return CreatedKey(key, new.token)

        return await self._database.run("create provisioner key", work)

    async def get(self, caller: Caller, key_id: UUID) -> KeyRow:
        """Give one provisioner key, revoked ones too; raises Refusal NOT_FOUND."""
        async with self._database.read("get provisioner key") as tx:
            return await key_for(tx, caller, key_id, Action.READ)

    async def list(
        self, caller: Caller, organization: str, wanted: KeyFilter, page: PageWish[tuple[str]]
    ) -> Page[KeyRow]:
        """Give a page of keys, by name: those of an organisation or, where none is named, those for all.

        Raises Refusal NOT_FOUND, INVALID_FIELDS, PAGE_TOKEN_INVALID.
        """
        after = page.after()
        async with self._database.read("list provisioner keys") as tx:
            found = await find_keys(
                tx,
                organization_id=await scope_of_keys(tx, caller, organization, Action.READ),
                name=wanted.name,
                with_revoked=wanted.show_revoked,
                after=after[0] if after else None,
                limit=page.limit,
            )
        return page.cut(found, lambda key: (key.name,))

    async def update(self, caller: Caller, key_id: UUID, values: Mapping[str, object]) -> KeyRow:
        """Change a key's `name` or `tags`, those that are given; jobs that run go on. Refuses NAME_TAKEN."""

        async def work(tx: Transaction) -> KeyRow:
            found = await key_for(tx, caller, key_id, Action.UPDATE)
            await lock_key(tx, found.id)
            key = await key_for(tx, caller, key_id, Action.UPDATE)
            changed = changes({"name": key.name, "tags": dict(key.tags)}, values)
            if not changed:
                return key
            await update_key(tx, key.id, values)
            after = await key_for(tx, caller, key_id, Action.UPDATE)
            await _record(tx, caller, "update", after, changed)
            return after

        return await self._database.run("update provisioner key", work)

    async def revoke(self, caller: Caller, key_id: UUID) -> KeyRow:
        """Make a key no longer good; one that is revoked stays as it is."""

        async def work(tx: Transaction) -> KeyRow:
            found = await key_for(tx, caller, key_id, Action.DELETE)
            await lock_key(tx, found.id)
            key = await key_for(tx, caller, key_id, Action.DELETE)
            if key.revoked_at is not None:
                return key
            await mark_revoked(tx, key.id)
            await _record(tx, caller, "revoke", key, {})
            return await key_for(tx, caller, key_id, Action.DELETE)

        return await self._database.run("revoke provisioner key", work)


async def key_for(tx: Transaction, caller: Caller, key_id: UUID, action: Action) -> KeyRow:
    """The key of that id; one for all organisations exists for operators only."""
    found = await find_keys(tx, id_=key_id)
    if not found or (found[0].organization_id is None and not is_operator(caller)):
        raise Refusal.not_found("provisioner key", str(key_id))
    organization_id = found[0].organization_id
    if organization_id is not None:
        resource = Resource.PROVISIONER_KEY
        await check_access(tx, caller, organization_id, resource, action, kind="provisioner key", id_=key_id)
    return found[0]


async def scope_of_keys(tx: Transaction, caller: Caller, named: str, action: Action) -> OrganizationId | None:
    """The organisation whose keys are meant; None where no one is named, which only operators may do."""
    if named:
        return (await organization_for(tx, caller, named, Resource.PROVISIONER_KEY, action)).id
    if is_operator(caller):
        return None
    raise Refusal.invalid(Violation("organization", "is required"))


async def _record(tx: Transaction, caller: Caller, verb: str, key: KeyRow, details: Mapping[str, object]) -> None:
    entry = AuditEntry(
        actor_of(caller),
        verb,
        "provisioner_key",
        key.id,
        key.name,
        key.organization_id,
        details,
    )
    await record_deed(tx, entry)
