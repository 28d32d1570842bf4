"""Schema 4: summaries of a query's labels in its row, for lists. `migrate.py` computes them for what is there.

Columns with a default, so that no table is copied.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ZERO, _NOTHING = sa.text("0"), sa.text("''")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Schema 3 to 4."""
    for name in ("disagreement", "uncertainty"):
        op.add_column("queries", sa.Column(name, sa.Float, nullable=False, server_default=_ZERO))
    op.add_column("queries", sa.Column("people", sa.Integer, nullable=False, server_default=_ZERO))
    op.add_column("queries", sa.Column("people_apart", sa.Float, nullable=False, server_default=_ZERO))
    op.add_column("queries", sa.Column("judges", _TEXT, nullable=False, server_default=_NOTHING))
    op.execute("UPDATE ledger_meta SET value = '4' WHERE name = 'schema_version'")
