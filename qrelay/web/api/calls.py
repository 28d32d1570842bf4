"""Operations that a service computes: retrieve, rerank, judge."""

from __future__ import annotations

from typing import Any

from qrelay import wire
from qrelay.runtime.translate import error_of_item
from qrelay.v1 import judge_pb2, reranker_pb2, retriever_pb2
from qrelay.web.api import models, shapes
from qrelay.web.security import Person
from qrelay.web.site import Site


async def retrieve(site: Site, _: Person, asked: models.RetrieveRequest) -> models.CandidateSet:
    """Candidates of a query from a collection's index: BM25 and dense, with every score and rank."""
    request = retriever_pb2.RetrieveRequest(
        queries=[wire.to_proto(shapes.query(asked))], max_candidates=asked.max_candidates
    )
    return shapes.shown_set(only(await site.call("retriever", "Retrieve", request)).candidate_set)


async def rerank(site: Site, _: Person, asked: models.RerankRequest) -> models.CandidateSet:
    """Candidates put in order by the reranker's model, with the judge's sample marked."""
    request = reranker_pb2.RerankRequest(
        candidate_sets=[wire.to_proto(shapes.candidate_set(asked, asked.candidates))],
        max_candidates=asked.max_candidates,
    )
    return shapes.shown_set(only(await site.call("reranker", "Rerank", request)).candidate_set)


async def judge(site: Site, _: Person, asked: models.JudgeRequest) -> models.JudgedSet:
    """Graded judgments of passages for a query, by every configured judge, with probabilities. The ledger keeps
    none of them."""
    record = shapes.candidate_set(asked, asked.candidates, asked.reference_answers)
    request = judge_pb2.JudgeRequest(candidate_sets=[wire.to_proto(record)])
    return shapes.shown_judgments(only(await site.call("judge", "Judge", request)).judged_set)


def only(answer: Any) -> Any:
    """The one result of a call with one item. Raises the error that it is."""
    (result,) = answer.results
    if result.HasField("error"):
        raise error_of_item(result.error)
    return result
