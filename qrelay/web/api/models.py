"""What the API takes and answers. The names are those of the protobuf contracts where a field is the same."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from qrelay.types import MAX_ROUND

TEXT_CHARS: Final = 1_000_000
"""Of one text in a request; services have lower limits of their own."""
MOST: Final = 1_000
"""Passages or texts in one request."""
PAGE: Final = 1_000
"""Queries on one page, at most."""

Text = Annotated[str, Field(max_length=TEXT_CHARS)]
Name = Annotated[str, Field(max_length=256)]


class Model(BaseModel):
    """What comes in: unknown names are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class PassageIn(Model):
    """A passage to look at."""

    text: Text = Field(description="What is read")
    title: Text = Field("", description="Read before the text")
    passage_id: Name = Field("", description="Empty: its place in the list, from 0")
    metadata: dict[Name, Text] = Field({}, max_length=100, description="For judges whose rubric shows fields of it")


Candidates = Annotated[
    list[Text | PassageIn],
    Field(min_length=1, max_length=MOST, description="Passages, as texts or with title and id"),
]


class Asked(Model):
    """A query, as all operations on one take it."""

    query: Text = Field(min_length=1, description="The question's text")
    collection: Name = Field("default", description="The collection that it is asked of")
    query_id: Name = Field("", description="Empty: made of the text")


class RetrieveRequest(Asked):
    """A query to find candidates for."""

    collection: Name = Field(description="A collection with an index")
    max_candidates: int = Field(0, ge=0, le=100_000, description="At most this many; 0: the retriever's setting")


class RerankRequest(Asked):
    """A query with the candidates to put in order."""

    candidates: Candidates
    max_candidates: int = Field(0, ge=0, le=MOST, description="Keep at most this many; 0: the reranker's setting")


class JudgeRequest(Asked):
    """A query with the candidates to judge."""

    candidates: Candidates
    reference_answers: list[Text] = Field([], max_length=100, description="For judges that compare with answers")


class Score(Model):
    """What one system says of a passage. rank: from 1; 0: scored, not ranked."""

    system: str
    score: float | None
    rank: int


class Candidate(Model):
    """A passage with every system's score and rank. `text` is empty where the service leaves it out."""

    passage_id: str
    doc_id: str
    title: str
    text: str
    metadata: dict[str, str]
    scores: list[Score]
    sampled: bool


class CandidateSet(Model):
    """A query's candidates, best first."""

    query_id: str
    collection: str
    candidates: list[Candidate]
    index_version: str
    models: dict[str, str] = Field(description="Stage: the model that computed")


class Judge(Model):
    """Who judged and how."""

    model: str
    revision: str
    quantisation: str
    strategy: str
    scale: str
    prompt_hash: str
    decoding: str


class Judgment(Model):
    """One judge's measurement of one passage: `grade` and what belongs to it, or `missing`, the reason why there is
    none (never a zero)."""

    passage_id: str
    judge: Judge
    grade: int | None
    p_relevant: float | None = Field(description="Probability that the grade is relevant")
    expected_relevance: float | None
    entropy: float | None = Field(description="In nats")
    probabilities: dict[int, float] = Field(description="Of each grade")
    calibration: str = Field(description="Hash of the map that calibrated p_relevant; empty: raw")
    missing: str
    detail: str = Field(description="Why it is missing, for people")
    reason: str = Field(description="The judge's own words, where it was asked for them")
    cached: bool
    prompt_tokens: int
    judgment_key: str
    judged_at: datetime


class JudgedSet(Model):
    """A query's judgments."""

    query_id: str
    collection: str
    judgments: list[Judgment]


class QueryIn(Model):
    """A query for the pipeline."""

    query: Text = Field(min_length=1)
    query_id: Name = Field("", description="Empty: made of the text, so that the same text is the same query")
    attributes: dict[Name, Text] = Field({}, max_length=100)
    reference_answers: list[Text] = Field([], max_length=100)


class FeedRequest(Model):
    """Queries for the pipeline."""

    collection: Name
    queries: list[QueryIn] = Field(min_length=1, max_length=MOST)
    round: int = Field(0, ge=0, le=MAX_ROUND, description="Retrieve and judge again what was fed in an earlier round")


class Fed(Model):
    """What became of them. The same request again feeds nothing twice."""

    accepted: int
    known: int = Field(description="Accepted before")
    rejected: dict[int, str] = Field(description="Place in the list, from 0: why")


class Paged(Model):
    """A page of queries."""

    collection: Name
    page_size: int = Field(100, ge=1, le=PAGE, description="Queries that are looked at")
    page_token: Name = Field("", description="What the page before returned; empty: the first page")


class LabelsRequest(Paged):
    """Which labels."""

    where: Name = Field(
        "",
        description="Terms joined by `and`: grade>=2, p_relevant<0.6, entropy>1, relevant, human, missing, "
        "missing=timeout, query_id=q1, judge=HASHPREFIX, strategy=NAME; empty: all",
    )
    every: bool = Field(False, description="Every judge's label, and not only the one that counts")
    texts: bool = Field(False, description="With the passages' titles and texts")


class Label(Model):
    """A label of a pair. `judge` is a judge's hash, or for people's decisions the pseudo-judge's."""

    query_id: str
    query: str
    passage_id: str
    grade: int | None
    scale: str
    p_relevant: float | None
    entropy: float | None
    missing: str
    strategy: str
    model: str
    judge: str
    human: bool
    generation: int
    title: str = ""
    text: str = ""


class Labels(Model):
    """A page of labels, by query_id and passage_id. It may hold none and be followed by others."""

    labels: list[Label]
    next_page_token: str = Field(description="Empty on the last page")


class QueriesRequest(Paged):
    """Which queries."""

    containing: Name = Field("", description="Only queries whose text contains this, in any case")


class QueryOut(Model):
    """A query of the ledger, with how many passages are labelled, and how many of these relevant."""

    query_id: str
    query: str
    labelled: int
    relevant: int
    missing: int


class Queries(Model):
    """A page of queries, by query_id. It may hold none and be followed by others."""

    queries: list[QueryOut]
    next_page_token: str = Field(description="Empty on the last page")


class StatsRequest(Model):
    """Of which collection."""

    collection: Name = Field("", description="Empty: of each")


class Stats(Model):
    """Counts of one collection."""

    collection: str
    queries: int
    judgments: int
    judged_pairs: int
    missing_judgments: int
    cached_judgments: int
    prompt_tokens: int
    open_dead_letters: int


class StatsAnswer(Model):
    """Counts by collection."""

    collections: list[Stats]


class DecideRequest(Model):
    """What a person decides about a pair."""

    collection: Name
    query_id: Name
    passage_id: Name
    grade: int | None = Field(description="On the scale; null withdraws what was decided")
    scale: Name = "0-3"
    author: Name = Field("", description="Empty: the name in X-Qrelay-Person, else sink.override_author")
    note: Text = ""


class Decided(Model):
    """added: false where the same decision stood already. in_candidates: false where the passage is no candidate of
    the query: qrels will hold it, training data cannot."""

    added: bool
    in_candidates: bool


class ExportRequest(Model):
    """What `qrelay export` would write, of the formats that services export."""

    collection: Name
    format: Literal["qrels", "triples", "run", "msmarco", "msmarco-ids", "tevatron"]
    judge: Name = Field("", description="Only this judge's labels: the beginning of its hash, or its strategy")
    where: Name = Field("", description="Only labels for which this holds, as in /v1/labels")
    overrides: bool = Field(False, description="Let people's decisions win over judges")
    system: Name = Field("", description="Of the format run: bm25, dense, bi_encoder or cross_encoder")
    unqualified: bool = Field(False, description="Training data even of judges that fell short")
    unmeasured: bool = Field(False, description="Training data even of judges that nobody measured")
    manifest: bool = Field(False, description="Answer the manifest (JSON, with the sha256) instead of the export")
