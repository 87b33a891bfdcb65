"""What the reconciler is told, once it is committed, of changes to templates and their presets."""

from __future__ import annotations

from collections.abc import Sequence

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.store.outbox.writer import append
from prebuilds.store.transactions import Transaction


async def tell_of_change(tx: Transaction, organization_id: OrganizationId, id_: TemplateId) -> None:
    """Append the news that a template changed: the reconciler looks at all of its pools."""
    await append(
        tx,
        EventKind.TEMPLATE_CHANGED,
        id_,
        organization_id=organization_id,
        payload={"template_id": str(id_)},
    )


async def tell_of_presets(
    tx: Transaction, organization_id: OrganizationId, template_id: TemplateId, preset_ids: Sequence[PresetId]
) -> None:
    """Append the news that these presets of a template were changed: the reconciler looks at their pools."""
    payload = {"preset_ids": [str(id_) for id_ in preset_ids]}
    await append(tx, EventKind.TEMPLATE_CHANGED, template_id, organization_id=organization_id, payload=payload)
