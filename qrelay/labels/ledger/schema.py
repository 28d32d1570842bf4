"""The ledger's tables (SQLAlchemy Core, dialect-neutral) and their version.

    queries          one row a committed query: its text, counters that make statistics cheap, and a summary of its
                     labels (`summaries.py`)
    candidate_sets   one row a query: its candidates with every system's score and rank, packed
    passages         title and text, once a collection and text hash
    judges           one row a judge identity; a combined judge (fused, cascade) is one of them
    judgments        one row a measurement, append-only, several a passage with several judges; grade is NULL exactly
                     where a reason says why. `generation` 0 came with the query, the others with later rounds and by
                     re-judging
    generations      one row a time that something was added to a query: its commit (0), each other round, each
                     re-judging; `round` says which round it was, and so that this round is in
    overrides        what people decided about a pair: append-only, authored, dated; the latest row of a pair counts
    judge_retractions
                     whose labels count no more: append-only, authored, dated; the latest row of a judge counts
    dead_letters     what could not be processed, whole, with its state
    exports          what was exported: range of changes, counts, sha256, manifest
    triggers         the outbox of training: one row a decision to train, written with the labels that caused it
    training_runs    one row a job that a trigger started, with how it ended
    collections      one row a collection: the number of its last change, and counters for the training policy
    audit_log        who changed what: append-only, one row a mutating act; triggers refuse to change or delete one
    forgotten        one row a query that was forgotten: hashes and numbers, no text (`forgetting.py`)
    ledger_meta      the schema version

A *change* is a transaction that altered labels of a collection; changes are numbered from 1 without regard to other
collections. A writer takes the collection's row first and holds it until it commits, so numbers become visible in
their order: who has read up to change n will never find a new row at or below n. Each query carries the number of the
change that touched it last, which is what an incremental export asks for.

Times are integers, microseconds since 1970-01-01 UTC: exact, sortable and the same in every database.

Candidates are packed (`packing.py`), judgments are not. Measured (40 candidates of four
systems, 25 of them with 1 KB of text and a judgment): a whole commit takes about 0.6 ms of CPU and 2.6 KB for the
candidates; a row a candidate and system, 160 a query, would add 0.3 ms and 9 KB. Nobody reads a candidate without its
query. Judgments are what people query, count and append to, so they are rows.

`judgments` is clustered by its key (WITHOUT ROWID): `query_no` grows with every commit, so a commit appends and a
query's judgments lie together. `queries` has a covering index for statistics, so that asking for counts
reads neither texts nor judgments.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 6
"""Raised with every change that an older qrelay could misread; `Ledger.open` refuses another number."""

metadata = sa.MetaData()
_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite gives out row numbers only to a column declared exactly INTEGER."""
_BYTES = sa.Text(collation="C")
_TEXT = sa.Text().with_variant(_BYTES, "postgresql")
"""Compared and ordered by UTF-8 bytes, whatever the database's language: so the same on every database."""
_HASH_128 = sa.String(32).with_variant(_BYTES, "postgresql")
_HASH_256 = sa.String(64).with_variant(_BYTES, "postgresql")
"""No length: SQLite ignores one, and PostgreSQL is not to differ."""
_ZERO, _NOTHING = sa.text("0"), sa.text("''")
"""Of columns that came later: with a default, a migration adds them without copying the table."""

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("collection", _TEXT, primary_key=True),
    sa.Column("change_no", sa.BigInteger, nullable=False, comment="the number of its last change"),
    sa.Column("hard_examples", sa.BigInteger, nullable=False, comment="ever verified at commit, by the policy"),
    sa.Column("disagreements", sa.BigInteger, nullable=False, comment="of the systems, ever, as far as judged"),
    sa.Column("judged", sa.BigInteger, nullable=False, comment="judged pairs that those two were counted among"),
)

ledger_meta = sa.Table(
    "ledger_meta",
    metadata,
    sa.Column("name", _TEXT, primary_key=True),
    sa.Column("value", _TEXT, nullable=False),
)

queries = sa.Table(
    "queries",
    metadata,
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
    sa.Column("change_no", sa.BigInteger, nullable=False, comment="the change that touched it last"),
    sa.Column("round", sa.Integer, nullable=False, server_default=_ZERO, comment="the latest that is in"),
    sa.Column("disagreement", sa.Float, nullable=False, server_default=_ZERO),
    sa.Column("uncertainty", sa.Float, nullable=False, server_default=_ZERO),
    sa.Column("people", sa.Integer, nullable=False, server_default=_ZERO),
    sa.Column("people_apart", sa.Float, nullable=False, server_default=_ZERO),
    sa.Column("judges", _TEXT, nullable=False, server_default=_NOTHING),
    sa.UniqueConstraint("collection", "query_id", name="queries_by_id"),
)
sa.Index("queries_by_change", queries.c.collection, queries.c.change_no)
sa.Index(
    "queries_statistics",
    queries.c.collection,
    queries.c.judgments,
    queries.c.pairs,
    queries.c.missing,
    queries.c.cached,
    queries.c.prompt_tokens,
)

candidate_sets = sa.Table(
    "candidate_sets",
    metadata,
    sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), primary_key=True, autoincrement=False),
    sa.Column("packed", sa.LargeBinary, nullable=False, comment="see qrelay/labels/ledger/packing.py"),
)

passages = sa.Table(
    "passages",
    metadata,
    sa.Column("collection", _TEXT, primary_key=True),
    sa.Column("text_hash", _HASH_128, primary_key=True, comment="first 128 bits of sha256(title, text)"),
    sa.Column("title", _TEXT, nullable=False),
    sa.Column("text", _TEXT, nullable=False),
)

judges = sa.Table(
    "judges",
    metadata,
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

judgments = sa.Table(
    "judgments",
    metadata,
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
    sa.Column("utility", _TEXT, comment="JSON list: nll, nll_without_passage, selected, rank; NULL: not measured"),
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

generations = sa.Table(
    "generations",
    metadata,
    sa.Column("query_no", _KEY, sa.ForeignKey("queries.query_no"), primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("change_no", sa.BigInteger, nullable=False),
    sa.Column("added_us", sa.BigInteger, nullable=False),
    sa.Column("judgments", sa.Integer, nullable=False, comment="how many were added"),
    sa.Column("round", sa.Integer, comment="the round that came with it; NULL: judged again"),
    sa.Column("left_out", sa.Integer, nullable=False, server_default=_ZERO, comment="judgments of changed texts"),
)

overrides = sa.Table(
    "overrides",
    metadata,
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
sa.Index("overrides_by_pair", overrides.c.query_no, overrides.c.passage_id, overrides.c.override_no)

judge_retractions = sa.Table(
    "judge_retractions",
    metadata,
    sa.Column("retraction_no", _KEY, primary_key=True, autoincrement=True),
    sa.Column("judge_no", _KEY, sa.ForeignKey("judges.judge_no"), nullable=False),
    sa.Column("retracted", sa.Boolean, nullable=False, comment="false: its labels count again"),
    sa.Column("author", _TEXT, nullable=False),
    sa.Column("reason", _TEXT, nullable=False),
    sa.Column("set_us", sa.BigInteger, nullable=False),
    sa.Column("changes", _TEXT, nullable=False, comment="JSON object: collection to the number of its change"),
)

exports = sa.Table(
    "exports",
    metadata,
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

triggers = sa.Table(
    "triggers",
    metadata,
    sa.Column("trigger_no", _KEY, primary_key=True, autoincrement=True),
    sa.Column("collection", _TEXT, nullable=False),
    sa.Column("change_no", sa.BigInteger, nullable=False, comment="train on what the ledger held up to this change"),
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

training_runs = sa.Table(
    "training_runs",
    metadata,
    sa.Column("job_name", _TEXT, primary_key=True),
    sa.Column("trigger_no", _KEY, sa.ForeignKey("triggers.trigger_no"), nullable=False),
    sa.Column("launcher", _TEXT, nullable=False),
    sa.Column("state", _TEXT, nullable=False, comment="running, succeeded or failed"),
    sa.Column("started_us", sa.BigInteger, nullable=False),
    sa.Column("finished_us", sa.BigInteger),
    sa.Column("exit_code", sa.Integer),
    sa.Column("detail", _TEXT, nullable=False, comment="JSON object: where it runs, its last lines of log"),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
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
    sa.Column("round", sa.Integer, nullable=False, server_default=_ZERO, comment="the query's"),
    sa.CheckConstraint("state IN ('open', 'replaying', 'replayed', 'resolved')", name="known_state"),
)
sa.Index("dead_letters_by_submission", dead_letters.c.submission)
sa.Index("dead_letters_by_query", dead_letters.c.collection, dead_letters.c.query_id)
sa.Index("dead_letters_by_state", dead_letters.c.state, dead_letters.c.collection, dead_letters.c.letter_no)

audit_log = sa.Table(
    "audit_log",
    metadata,
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

forgotten = sa.Table(
    "forgotten",
    metadata,
    sa.Column("query", _HASH_256, primary_key=True, comment="identity.forgotten_hash"),
    sa.Column("collection", _TEXT, nullable=False),
    sa.Column("first_change", sa.BigInteger, nullable=False, comment="that touched it; 0: it had none"),
    sa.Column("last_change", sa.BigInteger, nullable=False, comment="likewise"),
    sa.Column("forgotten_us", sa.BigInteger, nullable=False),
    sa.Column("finished_us", sa.BigInteger, comment="when every store was done; NULL: not yet"),
)
sa.Index("forgotten_by_collection", forgotten.c.collection)
