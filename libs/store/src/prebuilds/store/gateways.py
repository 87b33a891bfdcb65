"""The row of a gateway process: it says that the agents which the process holds are connected.

The process refreshes its row every 5 s; one unseen for 60 s is gone, and its agents with it (behaviour section 8).
`live_since` is set anew when a refresh finds the row older than that, so that nobody counts as disconnected for a time
in which no gateway could have held it (section 3, *Built but dead*).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import case, delete, func
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import GatewayId
from prebuilds.store.schema import Gateway
from prebuilds.store.transactions import Transaction

GONE_AFTER: Final = timedelta(seconds=60)
"""How long a gateway may go unseen before it is gone; `claim.sql` and the queries of eligibility say the same."""

FORGOTTEN_AFTER: Final = timedelta(days=1)


async def refresh_gateway(tx: Transaction, gateway_id: GatewayId, address: str) -> None:
    """Say that this process lives; makes its row where there is none, also one that was removed. Locks that row."""
    seen = insert(Gateway).values(id=gateway_id, address=address)
    await tx.execute(
        seen.on_conflict_do_update(
            index_elements=[Gateway.id],
            set_={
                "seen_at": func.now(),
                "live_since": case((Gateway.seen_at < func.now() - GONE_AFTER, func.now()), else_=Gateway.live_since),
            },
        )
    )


async def forget_gateways(tx: Transaction) -> None:
    """Remove the rows of processes that have long been gone; nothing refers to them by a foreign key."""
    await tx.execute(delete(Gateway).where(Gateway.seen_at < func.now() - FORGOTTEN_AFTER))
