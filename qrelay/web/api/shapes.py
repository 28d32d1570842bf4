"""Records of the services as the API shows them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from qrelay import wire
from qrelay.identity import query_id_of
from qrelay.naming import document_of
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Missing, Passage, Query
from qrelay.v1 import records_pb2
from qrelay.web.api import models


def query(asked: models.Asked, answers: Sequence[str] = ()) -> Query:
    """The query that was asked."""
    query_id = asked.query_id or query_id_of(asked.query)
    return Query(query_id, asked.query, asked.collection, datetime.now(UTC), {}, tuple(answers))


def candidate_set(
    asked: models.Asked, given: Sequence[str | models.PassageIn], answers: Sequence[str] = ()
) -> CandidateSet:
    """The query with its candidates, all of them marked for the judge."""
    passages = [_passage(place, each) for place, each in enumerate(given)]
    return CandidateSet(query(asked, answers), tuple(Candidate(each, (), True) for each in passages), "")


def _passage(place: int, given: str | models.PassageIn) -> Passage:
    each = models.PassageIn(text=given) if isinstance(given, str) else given
    passage_id = each.passage_id or str(place)
    return Passage(passage_id, document_of(passage_id), each.title, each.text, each.metadata)


def shown_set(message: records_pb2.CandidateSet) -> models.CandidateSet:
    """A candidate set."""
    found: CandidateSet = wire.from_proto(message)
    return models.CandidateSet(
        query_id=found.query.query_id,
        collection=found.query.collection,
        candidates=[_candidate(each) for each in found.candidates],
        index_version=found.index_version,
        models={step.stage: step.model for step in found.trace},
    )


def _candidate(each: Candidate) -> models.Candidate:
    passage = each.passage
    return models.Candidate(
        passage_id=passage.passage_id,
        doc_id=passage.doc_id,
        title=passage.title,
        text=passage.text,
        metadata=dict(passage.metadata),
        scores=[models.Score(system=s.system, score=s.score, rank=s.rank) for s in each.scores],
        sampled=each.sampled,
    )


def shown_judgments(message: records_pb2.JudgedSet) -> models.JudgedSet:
    """A judged set, without its candidates."""
    found: JudgedSet = wire.from_proto(message)
    asked = found.candidate_set.query
    return models.JudgedSet(
        query_id=asked.query_id,
        collection=asked.collection,
        judgments=[_judgment(each) for each in found.judgments],
    )


def _judgment(each: Judgment) -> models.Judgment:
    graded = each.outcome if isinstance(each.outcome, Graded) else None
    missing = each.outcome if isinstance(each.outcome, Missing) else None
    names = models.Judge.model_fields
    return models.Judgment(
        passage_id=each.passage_id,
        judge=models.Judge(**{name: getattr(each.judge, name) for name in names}),
        grade=graded.grade if graded else None,
        p_relevant=graded.p_relevant if graded else None,
        expected_relevance=graded.expected_relevance if graded else None,
        entropy=graded.entropy if graded else None,
        probabilities=dict(enumerate(graded.probabilities, graded.min_grade)) if graded else {},
        calibration=graded.calibration if graded else "",
        missing=missing.reason if missing else "",
        detail=missing.detail if missing else "",
        reason=each.reason,
        cached=each.cached,
        prompt_tokens=each.prompt_tokens,
        judgment_key=each.judgment_key,
        judged_at=each.judged_at,
    )
