"""Schema 5: the audit log, empty. Its triggers are those of `audit_log.py`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from qrelay.labels.ledger.audit_log import make_append_only

revision = "0005"
down_revision = "0004"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Schema 4 to 5."""
    op.create_table(
        "audit_log",
        sa.Column("entry_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("who", _TEXT, nullable=False, comment="name of the principal; empty: nobody was asked"),
        sa.Column("kind", _TEXT, nullable=False, comment="service, person or local"),
        sa.Column("act", _TEXT, nullable=False),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column("subject", _TEXT, nullable=False, comment="ids of what was touched, never a text"),
        sa.Column("touched", sa.BigInteger, nullable=False, comment="how many things it touched"),
        sa.Column("outcome", _TEXT, nullable=False, comment="done, or why it failed"),
    )
    make_append_only(op.get_bind())
    op.execute("UPDATE ledger_meta SET value = '5' WHERE name = 'schema_version'")
