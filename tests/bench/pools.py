"""The pools that a benchmark of the reconciler works on, made set-based: 10,000 presets take seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from prebuilds.domain.ids import SYSTEM_USER_ID

PREBUILDS: Final = 5
"""Of each preset."""
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Pools:
    """A database full of pools."""

    url: str
    presets: int
    presets_per_template: int = 10

    @property
    def wanted(self) -> int:
        """How many prebuilds there are while every pool is at its target."""
        return self.presets * PREBUILDS

    def make(self) -> None:
        """Fill the migrated, empty database: every pool is at its target."""
        parameters = {
            "presets": self.presets,
            "presets_per_template": self.presets_per_template,
            "prebuilds": PREBUILDS,
            "system_user_id": SYSTEM_USER_ID,
        }
        self._run("pools", **parameters)
        self.settle()

    def finish(self) -> None:
        """Let daemons and agents do all that is queued."""
        self._run("finish_all")

    def claim(self, *, claims: int = PREBUILDS, every: int = 1) -> int:
        """Claim so many prebuilds of every n-th preset, as people would; how many that were."""
        return self._run("claim_some", claims=claims, every=every)

    def expire(self, *, every: int) -> int:
        """Let one prebuild of every n-th preset that has a ttl expire; how many that were."""
        return self._run("expire_some", every=every)

    def settle(self) -> None:
        """Write down what was changed and count it anew, as autovacuum would in time."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def count(self, query: str) -> int:
        """Give the only number that a query answers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def _run(self, name: str, **parameters: object) -> int:
        # Several statements at once, so their parameters are put in on this side.
        with psycopg.connect(self.url, cursor_factory=psycopg.ClientCursor) as connection:
            return connection.execute((_HERE / f"{name}.sql").read_bytes(), parameters).rowcount


IN_PLACE: Final = """
SELECT count(*) FROM prebuilds
WHERE delete_marked_at IS NULL AND state IN ('starting', 'running')
"""
"""How many prebuilds there are or will be."""

UNEVEN: Final = f"""
SELECT count(*) FROM (
    SELECT p.id
    FROM presets AS p
    JOIN templates AS t ON t.active_version_id = p.version_id
    LEFT JOIN prebuilds AS b
        ON b.preset_id = p.id AND b.delete_marked_at IS NULL AND b.state IN ('starting', 'running')
    GROUP BY p.id
    HAVING count(b.workspace_id) <> {PREBUILDS}
) AS pool
"""  # noqa: S608 - a constant
"""How many pools have more or less than they want."""

WITH_SCHEDULES: Final = "SELECT count(DISTINCT preset_id) FROM preset_schedules"
