"""Schema 3: rounds, and retracted judges. What is there is round 0 of its query; re-judgments have none.

Columns with a default, so that no table is copied.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ZERO = sa.text("0")
_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Schema 2 to 3."""
    latest = sa.Column("round", sa.Integer, nullable=False, server_default=_ZERO, comment="the latest that is in")
    op.add_column("queries", latest)
    came = sa.Column("round", sa.Integer, comment="the round that came with it; NULL: judged again")
    op.add_column("generations", came)
    left_out = sa.Column(
        "left_out", sa.Integer, nullable=False, server_default=_ZERO, comment="judgments of changed texts"
    )
    op.add_column("generations", left_out)
    op.add_column(
        "dead_letters", sa.Column("round", sa.Integer, nullable=False, server_default=_ZERO, comment="the query's")
    )
    op.create_table(
        "judge_retractions",
        sa.Column("retraction_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("judge_no", _KEY, sa.ForeignKey("judges.judge_no"), nullable=False),
        sa.Column("retracted", sa.Boolean, nullable=False, comment="false: its labels count again"),
        sa.Column("author", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("set_us", sa.BigInteger, nullable=False),
        sa.Column("changes", _TEXT, nullable=False, comment="JSON object: collection to the number of its change"),
    )
    op.execute("UPDATE generations SET round = 0 WHERE generation = 0")
    op.execute("UPDATE ledger_meta SET value = '3' WHERE name = 'schema_version'")
