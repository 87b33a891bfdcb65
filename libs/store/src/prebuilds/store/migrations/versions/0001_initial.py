"""Everything: the tables, indexes and functions of the first release and the rows it begins with.

The statements lie beside this file in `0001_initial.sql`; `scripts/migration.py` writes them from the models.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The driver's connection takes the file as it is: many statements, and a `%` is a `%`.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - Alembic has just begun a transaction on it
    connection.execute(Path(__file__).with_suffix(".sql").read_bytes())
