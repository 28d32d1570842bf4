"""Schema 1: queries, candidates, passages, judges, judgments, dead letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_BYTES = sa.Text(collation="C")
_TEXT = sa.Text().with_variant(_BYTES, "postgresql")
_HASH_128 = sa.String(32).with_variant(_BYTES, "postgresql")
_HASH_256 = sa.String(64).with_variant(_BYTES, "postgresql")


def upgrade() -> None:
    """An empty database to schema 1."""
    op.create_table(
        "ledger_meta",
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("value", _TEXT, nullable=False),
    )
    op.create_table(
        "queries",
        sa.Column("query_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column("query_id", _TEXT, nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        sa.Column("attributes", _TEXT, nullable=False, comment="JSON object of text to text"),
        sa.Column("reference_answers", _TEXT, nullable=False, comment="JSON list of text"),
        sa.Column("submitted_us", sa.BigInteger, comment="when the producer submitted it, if it said so"),
        sa.Column("committed_us", sa.BigInteger, nullable=False),
        sa.Column("index_version", _TEXT, nullable=False),
        sa.Column("judgments", sa.Integer, nullable=False, comment="measurements: every judge's, missing included"),
        sa.Column("pairs", sa.Integer, nullable=False, comment="passages with at least one judgment"),
        sa.Column("missing", sa.Integer, nullable=False),
        sa.Column("cached", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("collection", "query_id", name="queries_by_id"),
    )
    op.create_index(
        "queries_statistics", "queries", ["collection", "judgments", "pairs", "missing", "cached", "prompt_tokens"]
    )
    op.create_table(
        "candidate_sets",
        sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), primary_key=True, autoincrement=False),
        sa.Column("packed", sa.LargeBinary, nullable=False, comment="see qrelay/labels/ledger/packing.py"),
    )
    op.create_table(
        "passages",
        sa.Column("collection", _TEXT, primary_key=True),
        sa.Column("text_hash", _HASH_128, primary_key=True, comment="first 128 bits of sha256(title, text)"),
        sa.Column("title", _TEXT, nullable=False),
        sa.Column("text", _TEXT, nullable=False),
    )
    op.create_table(
        "judges",
        sa.Column("judge_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("judge_hash", _HASH_256, nullable=False, unique=True),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("revision", _TEXT, nullable=False),
        sa.Column("quantisation", _TEXT, nullable=False),
        sa.Column("prompt_hash", _TEXT, nullable=False),
        sa.Column("strategy", _TEXT, nullable=False),
        sa.Column("scale", _TEXT, nullable=False),
        sa.Column("decoding", _TEXT, nullable=False),
    )
    op.create_table(
        "judgments",
        sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), primary_key=True, autoincrement=False),
        sa.Column("passage_id", _TEXT, primary_key=True),
        sa.Column("judgment_key", _HASH_256, primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False, comment="later wins in exports"),
        sa.Column("judge_no", _KEY, sa.ForeignKey("judges.judge_no"), nullable=False),
        sa.Column("grade", sa.Integer, comment="NULL: missing, and then missing_reason says why"),
        sa.Column("min_grade", sa.Integer),
        sa.Column("probabilities", _TEXT, comment="JSON list; item i belongs to grade min_grade + i"),
        sa.Column("expected_relevance", sa.Float),
        sa.Column("entropy", sa.Float, comment="nats"),
        sa.Column("p_relevant", sa.Float),
        sa.Column("calibration", _TEXT),
        sa.Column(
            "utility", _TEXT, comment="JSON list: nll, nll_without_passage, selected, rank; NULL: not measured"
        ),
        sa.Column("missing_reason", _TEXT),
        sa.Column("missing_detail", _TEXT),
        sa.Column("judged_us", sa.BigInteger, nullable=False),
        sa.Column("cached", sa.Boolean, nullable=False),
        sa.Column("raw_reply", _TEXT, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.CheckConstraint("(grade IS NULL) = (missing_reason IS NOT NULL)", name="missing_is_never_a_grade"),
        sa.CheckConstraint("(grade IS NULL) = (p_relevant IS NULL)", name="a_grade_has_its_probability"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dead_letters",
        sa.Column("letter_no", _KEY, primary_key=True, autoincrement=True),
        sa.Column("dead_letter_id", _TEXT, nullable=False, unique=True),
        sa.Column("submission", _HASH_256, nullable=False, comment="identity.query_fingerprint"),
        sa.Column("stage", _TEXT, nullable=False),
        sa.Column("collection", _TEXT, nullable=False),
        sa.Column("query_id", _TEXT, nullable=False),
        sa.Column("query_text", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failed_us", sa.BigInteger, nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("headers", _TEXT, nullable=False, comment="JSON object of text to text"),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("state", _TEXT, nullable=False, comment="open, replaying, replayed or resolved"),
        sa.Column("closed_us", sa.BigInteger, comment="when it was replayed or resolved"),
        sa.CheckConstraint("state IN ('open', 'replaying', 'replayed', 'resolved')", name="known_state"),
    )
    op.create_index("dead_letters_by_submission", "dead_letters", ["submission"])
    op.create_index("dead_letters_by_query", "dead_letters", ["collection", "query_id"])
    op.create_index("dead_letters_by_state", "dead_letters", ["state", "collection", "letter_no"])
    op.execute("INSERT INTO ledger_meta (name, value) VALUES ('schema_version', '1')")
