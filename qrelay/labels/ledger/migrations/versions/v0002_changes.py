"""Schema 2: numbered changes, generations, overrides, exports, triggers and training runs.

What is there already is change 1 of its collection: an incremental export after it brings only what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_BYTES = sa.Text(collation="C")
_TEXT = sa.Text().with_variant(_BYTES, "postgresql")
_HASH_256 = sa.String(64).with_variant(_BYTES, "postgresql")


def upgrade() -> None:
    """Schema 1 to 2."""
    _add_tables()
    _number_changes()
    _fill()
    op.execute("UPDATE ledger_meta SET value = '2' WHERE name = 'schema_version'")


def _add_tables() -> None:
    op.create_table(
        "collections",
        sa.Column("collection", _TEXT, primary_key=True),
        sa.Column("change_no", sa.BigInteger, nullable=False, comment="the number of its last change"),
        sa.Column("hard_examples", sa.BigInteger, nullable=False, comment="ever verified at commit, by the policy"),
        sa.Column("disagreements", sa.BigInteger, nullable=False, comment="of the systems, ever, as far as judged"),
        sa.Column("judged", sa.BigInteger, nullable=False, comment="judged pairs that those two were counted among"),
    )
    op.create_table(
        "generations",
        sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), primary_key=True, autoincrement=False),
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("change_no", sa.BigInteger, nullable=False),
        sa.Column("added_us", sa.BigInteger, nullable=False),
        sa.Column("judgments", sa.Integer, nullable=False, comment="how many were added"),
    )
    op.create_table(
        "overrides",
        sa.Column("override_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), nullable=False),
        sa.Column("passage_id", _TEXT, nullable=False),
        sa.Column("grade", sa.Integer, comment="NULL: the override of this pair is withdrawn"),
        sa.Column("scale", _TEXT, nullable=False, comment="the scale that the grade is on"),
        sa.Column("author", _TEXT, nullable=False),
        sa.Column("note", _TEXT, nullable=False),
        sa.Column("set_us", sa.BigInteger, nullable=False),
        sa.Column("change_no", sa.BigInteger, nullable=False),
    )
    op.create_index("overrides_by_pair", "overrides", ["query_no", "passage_id", "override_no"])
    op.create_table(
        "exports",
        sa.Column("export_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column("format", _TEXT, nullable=False),
        sa.Column("location", _TEXT, nullable=False, comment="the file or folder, as it was asked for"),
        sa.Column("from_change", sa.BigInteger, nullable=False, comment="0: from the beginning; exclusive"),
        sa.Column("to_change", sa.BigInteger, nullable=False, comment="inclusive"),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("sha256", _HASH_256, nullable=False, comment="of the file, or of the list of a folder's files"),
        sa.Column("manifest", _TEXT, nullable=False, comment="JSON object"),
        sa.Column("exported_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "triggers",
        sa.Column("trigger_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column(
            "change_no", sa.BigInteger, nullable=False, comment="train on what the ledger held up to this change"
        ),
        sa.Column("rule", _TEXT, nullable=False, comment="the rule of the policy that fired"),
        sa.Column("detail", _TEXT, nullable=False, comment="JSON object: the numbers behind it"),
        sa.Column("hard_examples", sa.BigInteger, nullable=False, comment="the collection's counter when it fired"),
        sa.Column("disagreements", sa.BigInteger, nullable=False, comment="likewise"),
        sa.Column("judged", sa.BigInteger, nullable=False, comment="likewise"),
        sa.Column("job_name", _TEXT, nullable=False, unique=True),
        sa.Column("state", _TEXT, nullable=False, comment="pending, launched or refused"),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
        sa.Column("closed_us", sa.BigInteger, comment="when it was launched or refused"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", _TEXT, nullable=False, comment="of the last attempt; empty: none"),
        sa.UniqueConstraint("collection", "change_no", name="triggers_by_change"),
    )
    op.create_table(
        "training_runs",
        sa.Column("job_name", _TEXT, primary_key=True),
        sa.Column("trigger_no", _KEY, sa.ForeignKey("triggers.trigger_no"), nullable=False),
        sa.Column("launcher", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False, comment="running, succeeded or failed"),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("finished_us", sa.BigInteger),
        sa.Column("exit_code", sa.Integer),
        sa.Column("detail", _TEXT, nullable=False, comment="JSON object: where it runs, its last lines of log"),
    )


def _number_changes() -> None:
    change_no = sa.Column(
        "change_no",
        sa.BigInteger,
        nullable=False,
        server_default="1",
        comment="the change that touched it last",
    )
    with op.batch_alter_table("queries") as table:
        table.add_column(change_no)
    with op.batch_alter_table("queries") as table:
        table.alter_column(
            "change_no",
            server_default=None,
            existing_type=sa.BigInteger(),
            existing_nullable=False,
            existing_comment="the change that touched it last",
        )
    op.create_index("queries_by_change", "queries", ["collection", "change_no"])


def _fill() -> None:
    op.execute(
        "INSERT INTO collections (collection, change_no, hard_examples, disagreements, judged)"
        " SELECT DISTINCT collection, 1, 0, 0, 0 FROM queries"
    )
    op.execute(
        "INSERT INTO generations (query_no, generation, change_no, added_us, judgments)"
        " SELECT query_no, 0, 1, committed_us, (SELECT count(*) FROM judgments"
        " WHERE judgments.query_no = queries.query_no AND generation = 0) FROM queries"
    )
    op.execute(
        "INSERT INTO generations (query_no, generation, change_no, added_us, judgments)"
        " SELECT query_no, generation, 1, max(judged_us), count(*) FROM judgments"
        " WHERE generation > 0 GROUP BY query_no, generation"
    )
