"""The records that travel through qrelay, in the field's own words.

Plain frozen dataclasses: the cores compute on these and know neither protobuf nor NATS. The one
translation to and from protobuf is `qrelay/wire.py`. Times are UTC.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Final, NamedTuple

from qrelay.notebook import candidates_html, judgments_html, named, short

BM25: Final = "bm25"
DENSE: Final = "dense"
CROSS_ENCODER: Final = "cross_encoder"
BI_ENCODER: Final = "bi_encoder"
SMALL_CROSS_ENCODER: Final = "small_cross_encoder"
"""The first of the reranker's cascade."""
SYSTEMS: Final = (BM25, DENSE, CROSS_ENCODER, BI_ENCODER)
CASCADE: Final = "cascade"
FUSED: Final = "fused"
COMBINED: Final = (CASCADE, FUSED)
"""Strategies of combined judges, whose labels are made of other judges' labels; the first counts first."""
_RETRIEVAL_SCORES: Final = re.compile(r"(?:^|[;\s])stage-scores=(yes|no)(?=[;\s]|$)")
MAX_ROUND: Final = 2**31 - 1
"""Of a query: what every database's INTEGER holds."""


@dataclass(frozen=True, slots=True, repr=False)
class Query:
    """A question to label. `query_id` is unique within `collection`; the first text for an id wins. `round`: 0 the
    first time; in a higher one it is retrieved, reranked and judged again by the models that then serve."""

    query_id: str
    text: str
    collection: str
    submitted_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    reference_answers: Sequence[str] = ()
    round: int = 0

    def __repr__(self) -> str:
        asked = f"round {self.round}" if self.round else ""
        return named(self, repr(self.query_id), short(self.text), self.collection, asked)


@dataclass(frozen=True, slots=True, repr=False)
class Passage:
    """A piece of a document: `passage_id` is `doc_id#n`, n counted from 0. metadata: the document's, field to text,
    as `formats/records.py` reads it."""

    passage_id: str
    doc_id: str
    title: str
    text: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return named(self, repr(self.passage_id), self.title and short(self.title), short(self.text))


class Score(NamedTuple):
    """What one system says of one passage; a tuple, because a set holds hundreds. `rank` counts from 1; 0 says
    that the system scored the passage without ranking it among its own results. `score` is None where only
    the rank is known."""

    system: str
    score: float | None
    rank: int


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """A passage with every system's score and rank. `sampled` marks it for the judge."""

    passage: Passage
    scores: tuple[Score, ...]
    sampled: bool = False

    def score(self, system: str) -> Score | None:
        """This system's score, or None where it gave none; what is not finite is no score, and its rank is none."""
        return next((s for s in self.scores if s.system == system and (s.score is None or isfinite(s.score))), None)

    def __repr__(self) -> str:
        ranks = (f"{each.system} {each.rank}" for each in self.scores)
        return named(self, repr(self.passage.passage_id), *ranks, "sampled" if self.sampled else "")


def without_text(candidate: Candidate) -> Candidate:
    """The candidate with its ids and scores alone."""
    passage = Passage(candidate.passage.passage_id, candidate.passage.doc_id, "", "")
    return Candidate(passage, candidate.scores, candidate.sampled)


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One stage's entry in a set's trace. Times in seconds."""

    stage: str
    replica: str
    model: str
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True, repr=False)
class CandidateSet:
    """A query with its candidates. `index_version` names the index that they came from."""

    query: Query
    candidates: tuple[Candidate, ...]
    index_version: str
    trace: tuple[TraceStep, ...] = ()

    def __repr__(self) -> str:
        sampled = sum(each.sampled for each in self.candidates)
        counts = f"{len(self.candidates)} candidates", f"{sampled} sampled" if sampled else ""
        return named(self, repr(self.query.query_id), short(self.query.text), *counts)

    def _repr_html_(self) -> str:
        return candidates_html(self)


@dataclass(frozen=True, slots=True)
class JudgeIdentity:
    """Who judged and how: everything that may change a label except the two texts.

    model, revision, quantisation: the weights. prompt_hash: sha256 of the prompt template.
    strategy and scale: e.g. "graded", "0-3". decoding: canonical text of the decoding parameters.
    """

    model: str
    revision: str
    quantisation: str
    prompt_hash: str
    strategy: str
    scale: str
    decoding: str

    @property
    def fingerprint(self) -> str:
        """The weights in one word, as `model@revision:quantisation`."""
        return f"{self.model}@{self.revision}:{self.quantisation}"

    @property
    def uses_retrieval_scores(self) -> bool:
        """Whether its labels lean on the retrieval systems' scores, which are a student's too. `decoding` says so, as
        `retrieval_scores` writes it; a combined judge that does not say is taken to lean."""
        said = _RETRIEVAL_SCORES.findall(self.decoding)
        return "yes" in said if said else self.strategy in COMBINED


def retrieval_scores(uses: bool) -> str:
    """The part of a `decoding` from which `JudgeIdentity.uses_retrieval_scores` is read. It is hashed: it stays."""
    return f"stage-scores={'yes' if uses else 'no'}"


@dataclass(frozen=True, slots=True)
class Utility:
    """What a passage does for a text: the query (query_likelihood), or an answer (answer_nll, utility).

    nll: mean negative log-likelihood of the text's tokens given the passage, nats a token; nll_without_passage:
    the same without any passage. selected: whether a listwise judge chose the passage; rank: its place in that
    judge's order, from 1. None, and 0 for the rank, where the strategy does not measure it.
    """

    nll: float | None = None
    nll_without_passage: float | None = None
    selected: bool | None = None
    rank: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Graded:
    """A judgment that succeeded. `probabilities[i]` belongs to grade `min_grade + i` and they sum to 1;
    entropy in nats; `p_relevant` is the probability that the grade is at or above the scale's relevant
    grade, calibrated where `calibration` names a map and raw where it is empty. `utility` holds what a
    likelihood or listwise strategy measured."""

    grade: int
    min_grade: int
    probabilities: tuple[float, ...]
    expected_relevance: float
    entropy: float
    p_relevant: float
    calibration: str = ""
    utility: Utility | None = None

    def __repr__(self) -> str:
        calibrated = "calibrated" if self.calibration else ""
        return named(self, f"grade={self.grade}", f"p_relevant={self.p_relevant:.2f}", calibrated)


@dataclass(frozen=True, slots=True)
class Missing:
    """A judgment that failed or was not attempted: never a grade, never a negative.

    `reason` is one of MISSING_REASONS; `detail` is for people. on_hold_s: where no pair is to blame but an endpoint
    that pauses or refuses, seconds after which it may be asked again; never stored or sent.
    """

    reason: str
    detail: str = ""
    on_hold_s: float | None = None


MISSING_REASONS: Final = (
    "timeout",
    "unavailable",
    "rate_limited",
    "unparseable",
    "filtered",
    "skipped",
    "too_long",
    "refused",
    "error",
)


@dataclass(frozen=True, slots=True, repr=False)
class Judgment:
    """One measurement of one (query, passage) pair by one judge. `judgment_key` identifies it: see
    `qrelay.identity.judgment_key`. `prompt_tokens` is what it cost, 0 where it came from the cache."""

    passage_id: str
    judgment_key: str
    outcome: Graded | Missing
    judge: JudgeIdentity
    judged_at: datetime
    cached: bool = False
    raw_reply: str = ""
    prompt_tokens: int = 0

    @property
    def reason(self) -> str:
        """The judge's words for its grade; "" where it was not asked for them."""
        return reason_in(self.raw_reply)

    def __repr__(self) -> str:
        return named(self, repr(self.passage_id), repr(self.outcome), f"{self.judge.model} {self.judge.strategy}")


_REASON: Final = "\nReason: "


def with_reason(reply: str, reason: str) -> str:
    """The raw reply of a judge that gave a reason; a reply alone can never be taken for one."""
    return reply.replace(_REASON, " Reason: ") + (_REASON + reason if reason else "")


def reason_in(raw_reply: str) -> str:
    """The reason that `with_reason` put there, or ""."""
    return raw_reply.partition(_REASON)[2]


@dataclass(frozen=True, slots=True, repr=False)
class JudgedSet:
    """A candidate set with the judgments of its sampled candidates."""

    candidate_set: CandidateSet
    judgments: tuple[Judgment, ...]

    def __repr__(self) -> str:
        query = self.candidate_set.query
        return named(self, repr(query.query_id), short(query.text), *self._counts())

    def _counts(self) -> Iterator[str]:
        """How many of each grade, the highest first, and how many are missing."""
        grades = Counter(each.outcome.grade for each in self.judgments if isinstance(each.outcome, Graded))
        yield from (f"{count} of grade {grade}" for grade, count in sorted(grades.items(), reverse=True))
        if missing := len(self.judgments) - grades.total():
            yield f"{missing} missing"

    def _repr_html_(self) -> str:
        return judgments_html(self)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be processed, with the reason and the original, so that it can be
    replayed. `subject`, `headers` and `payload` are the original's; `stage` is where it failed; `round` is the
    query's."""

    dead_letter_id: str
    stage: str
    collection: str
    query_id: str
    query_text: str
    reason: str
    detail: str
    attempts: int
    failed_at: datetime
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    round: int = 0
