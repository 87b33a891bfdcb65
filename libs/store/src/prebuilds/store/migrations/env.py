"""Runs migrations on the connection that `prebuilds.store.migrate` passes in; there is no offline mode."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # Only `scripts/migration.py` passes models, to compare them with the database.
    target_metadata=context.config.attributes.get("metadata"),
)
with context.begin_transaction():
    context.run_migrations()
