"""What the queueing of a build by a person does to a prebuild; the reconciler's own builds are in `filling`."""

from __future__ import annotations

from typing import Final, Literal

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import WorkspaceId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


async def begin_build_of_prebuild(
    tx: Transaction, workspace_id: WorkspaceId, transition: Literal[Transition.START, Transition.STOP]
) -> bool:
    """Take a locked pool row out of what can be claimed until the build has ended; False for what is no prebuild."""
    cursor = await tx.run(_queries["begin_build"], {"workspace_id": workspace_id, "transition": transition.value})
    return cursor.rowcount > 0
