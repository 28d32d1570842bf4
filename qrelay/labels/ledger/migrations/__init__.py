"""Alembic's migrations of the ledger: one file a schema version, run by `migrate.py` only."""
