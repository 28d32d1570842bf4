"""Schema 6: which queries were forgotten, by hash."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Schema 5 to 6."""
    hashed = sa.String(64).with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "forgotten",
        sa.Column("query", hashed, primary_key=True, comment="identity.forgotten_hash"),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column("first_change", sa.BigInteger, nullable=False, comment="that touched it; 0: it had none"),
        sa.Column("last_change", sa.BigInteger, nullable=False, comment="likewise"),
        sa.Column("forgotten_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger, comment="when every store was done; NULL: not yet"),
    )
    op.create_index("forgotten_by_collection", "forgotten", ["collection"])
    op.execute("UPDATE ledger_meta SET value = '6' WHERE name = 'schema_version'")
