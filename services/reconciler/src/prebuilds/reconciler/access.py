"""Finding things for a caller: what the caller may not see does not exist (design section 8)."""

from __future__ import annotations

from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.domain.principals import Person
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.people import find_organizations
from prebuilds.reconciler.queries.pools import PresetRow, read_presets
from prebuilds.reconciler.queries.templates import find_templates
from prebuilds.reconciler.queries.versions import find_versions
from prebuilds.reconciler.queries.views import OrganizationRow, TemplateRow, VersionRow
from prebuilds.store.audit import Actor
from prebuilds.store.transactions import Transaction


async def organization_for(
    tx: Transaction, caller: Caller, named: str, resource: Resource, action: Action
) -> OrganizationRow:
    """The organisation of that name or id, in which the caller may do this."""
    found = await find_organizations(tx, named=named)
    if not found:
        raise Refusal.not_found("organization", named)
    caller.require(found[0].id, resource, action, name=named)
    return found[0]


async def check_access(
    tx: Transaction,
    caller: Caller,
    organization_id: OrganizationId,
    resource: Resource,
    action: Action,
    *,
    kind: str,
    id_: UUID,
) -> None:
    """Refuse who may not do this to a thing; to who is no member of its organisation the thing does not exist.

    To nobody does it where the organisation is deleted.
    """
    if not await find_organizations(tx, named=str(organization_id)):
        raise Refusal.not_found(kind, str(id_))
    try:
        caller.require(organization_id, resource, action)
    except Refusal as refusal:
        if refusal.reason is Reason.NOT_FOUND:
            raise Refusal.not_found(kind, str(id_)) from refusal
        raise


async def template_for(
    tx: Transaction, caller: Caller, id_: UUID, action: Action, *, resource: Resource = Resource.TEMPLATE
) -> TemplateRow:
    """The template of that id, deleted ones too; `resource` is what of it the caller wants to act upon."""
    found = await find_templates(tx, id_=id_, with_deleted=True)
    if not found:
        raise Refusal.not_found("template", str(id_))
    await check_access(tx, caller, found[0].organization_id, resource, action, kind="template", id_=id_)
    return found[0]


async def pool_for(tx: Transaction, caller: Caller, id_: PresetId, action: Action) -> PresetRow:
    """The preset of that id, of any version; one that asks for no prebuilds has no pool."""
    found = await read_presets(tx, [id_])
    if not found or found[0].desired_instances is None:
        raise Refusal.not_found("pool", str(id_))
    await check_access(tx, caller, found[0].organization_id, Resource.POOL, action, kind="pool", id_=id_)
    return found[0]


async def template_named(tx: Transaction, organization_id: OrganizationId, named: str) -> TemplateRow:
    """The template of that name or id in an organisation."""
    found = await find_templates(tx, organization_id=organization_id, named=named, with_deleted=True)
    if not found:
        raise Refusal.not_found("template", named)
    return found[0]


async def version_for(tx: Transaction, caller: Caller, id_: UUID, action: Action) -> VersionRow:
    """The version of that id."""
    found = await find_versions(tx, id_=id_)
    if not found:
        raise Refusal.not_found("template version", str(id_))
    organization_id = found[0].organization_id
    await check_access(tx, caller, organization_id, Resource.TEMPLATE, action, kind="template version", id_=id_)
    return found[0]


def is_operator(caller: Caller) -> bool:
    """Whether the caller is a person who may do everything everywhere."""
    return isinstance(caller.principal, Person) and caller.principal.is_operator


def actor_of(caller: Caller) -> Actor:
    """The caller as the audit log names it."""
    principal = caller.principal
    return Actor(caller.key, principal.name if isinstance(principal, Person) else caller.key)
