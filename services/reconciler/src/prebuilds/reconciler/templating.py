"""Making templates without a version, and what all that changes a template does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import TemplateId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, organization_for
from prebuilds.reconciler.queries.people import keep_organization
from prebuilds.reconciler.queries.templates import (
    LockedTemplate,
    NewTemplate,
    find_templates,
    insert_template,
    lock_template,
)
from prebuilds.reconciler.queries.views import TemplateRow
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit_or_answer, fingerprint
from prebuilds.store.transactions import Transaction

METHOD: Final = "TemplateService.CreateTemplate"


@dataclass(frozen=True, slots=True)
class TemplateOrder:
    """A template that somebody wants."""

    organization: str
    name: str
    display_name: str
    description: str
    default_ttl: timedelta | None
    autostart: str
    time_til_dormant: timedelta | None
    time_til_dormant_autodelete: timedelta | None
    max_starting: int | None
    request_id: str


class Templating:
    """Makes templates."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: TemplateOrder) -> TemplateRow:
        """Make a template without a version. Refuses NAME_TAKEN, REQUEST_ID_REUSED."""

        async def work(tx: Transaction) -> TemplateRow:
            organization = await organization_for(tx, caller, order.organization, Resource.TEMPLATE, Action.CREATE)
            template_id = TemplateId(uuid4())
            request = RequestKey(organization.id, caller.key, METHOD, order.request_id)
            template = NewTemplate(
                name=order.name,
                display_name=order.display_name,
                description=order.description,
                default_ttl=order.default_ttl,
                autostart=order.autostart,
                time_til_dormant=order.time_til_dormant,
                time_til_dormant_autodelete=order.time_til_dormant_autodelete,
                max_starting=order.max_starting,
            )
            content = fingerprint({name: str(value) for name, value in asdict(template).items()})
            first = await admit_or_answer(tx, request, content, {"template_id": str(template_id)})
            await keep_organization(tx, organization.id)
            if first is not None:
                return (await find_templates(tx, id_=UUID(first["template_id"]), with_deleted=True))[0]
            await insert_template(tx, template_id, organization.id, template)
            entry = AuditEntry(actor_of(caller), "create", "template", template_id, order.name, organization.id)
            await record_deed(tx, entry)
            return (await find_templates(tx, id_=template_id))[0]

        return await self._database.run("create template", work)


async def lock_live(tx: Transaction, id_: TemplateId, name: str) -> LockedTemplate:
    """Lock a template that can be changed. Refuses TEMPLATE_DELETED."""
    template = await lock_template(tx, id_)
    if template.deleted:
        raise Refusal(Reason.TEMPLATE_DELETED, f"template {name!r} is deleted", metadata={"subject": f"template:{id_}"})
    return template
