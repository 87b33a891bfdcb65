"""Postgres: connections, transactions, schema, migrations and the writers of shared tables."""
