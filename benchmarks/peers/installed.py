"""qrelay as a peer: NATS and four services on this machine, at the same depth, its judge arranged in several ways.

    qrelay             the same model, engine and words as auto-qrels' judge: the same labels
    qrelay-likelihood  the same model by the default strategy, query_likelihood, in the engine OpenVINO
    qrelay-early       the same, and a query ends when mining has what it needs (judge.early_stop)

Encoders compute in OpenVINO (8-bit integers), which `qrelay models tune` chooses on processors without bfloat16;
`qrelay-torch` is `qrelay` with PyTorch throughout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from benchmarks.peers.material import EMBEDDER, HEAD, JUDGED, PAIRS, PER_DOCUMENT, Label, Material
from benchmarks.references.__main__ import COLLECTION
from qrelay import wire
from qrelay.bench.pipeline import Installation, Shape, started
from qrelay.bench.probe import local
from qrelay.bench.running import Plan
from qrelay.bench.targets.pipeline import PipelineTarget
from qrelay.bench.targets.recorded import Recorded
from qrelay.runtime.client import channel, signed
from qrelay.types import Graded, JudgedSet, Query
from qrelay.v1 import sink_pb2, sink_pb2_grpc

Environ = Mapping[str, str]
LIKELIHOOD: Final = {"BACKEND": "openvino", "STRATEGY": "query_likelihood"}
ASKED: Final = {"BACKEND": "llamacpp", "STRATEGY": "binary"}
EARLY: Final = {**LIKELIHOOD, "EARLY_STOP__ENABLED": "true"}
POLL_S: Final = 0.2
"""Between questions whether queries have ended: a turn takes seconds to minutes, and a question costs a sink some."""


def endpoint(url: str, concurrency: int) -> dict[str, str]:
    """The judge's settings for an OpenAI-compatible endpoint."""
    return {"BACKEND": "openai", "STRATEGY": "binary", "ENDPOINT__URL": url,
            "ENDPOINT__CONCURRENCY": str(concurrency)}  # fmt: skip


class Installed:
    """See the module. judge: its settings, without QRELAY_JUDGE__."""

    def __init__(self, material: Material, model: str, judge: Environ, engine: str) -> None:
        environ = {
            "RETRIEVER__INDEX_DIR": str(material.index),
            "RETRIEVER__EMBEDDER": EMBEDDER,
            "RETRIEVER__MAX_CANDIDATES": str(PAIRS),
            "RERANKER__SCORER": "cross_encoder",
            "RERANKER__CROSS_ENCODER": f"path:{material.cross_encoder}",
            "RERANKER__ENGINE": engine,
            "RERANKER__MAX_CANDIDATES": str(PAIRS),
            "RERANKER__KEEP": str(PAIRS),
            "RERANKER__SAMPLE": str(JUDGED),
            "RERANKER__SAMPLE_HEAD": str(HEAD),
            "RERANKER__MAX_PER_DOCUMENT": str(PER_DOCUMENT),
            "JUDGE__MODEL": model,
            **{f"JUDGE__{name}": value for name, value in judge.items()},
        }
        self._plan = Plan(environ={f"QRELAY_{name}": value for name, value in environ.items()}, queue=True)

    def __enter__(self) -> Self:
        self._running = started(Shape(), self._plan)
        self._at: Installation = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__(None, None, None)

    def cpu_seconds(self) -> dict[str, float]:
        """See Way: the feed is this process."""
        used = {name: local(each.pid).cpu_seconds or 0.0 for name, each in self._at.processes().items()}
        return {**used, "feed": time.process_time()}

    def label(self, queries: Sequence[Query]) -> None:
        """See Way: all of them fed at once, as `qrelay feed` does; done when the ledger has them."""
        asyncio.run(self._fed(queries))

    async def _fed(self, queries: Sequence[Query]) -> None:
        source = Recorded("query", [wire.to_proto(query) for query in queries])
        async with PipelineTarget(self._at.nats_url, self._at.sink, source, poll_s=POLL_S) as target:
            answers = await asyncio.gather(*map(target.send, range(len(queries))))
            if failed := [answer for answer in answers if not answer.ok]:
                raise SystemExit(f"{len(failed)} of {len(queries)} queries failed: {failed[0]}, {target.errors}")

    def labels(self, queries: Sequence[Query]) -> list[Label]:
        """See Way."""
        wanted = {query.query_id for query in queries}
        with channel(self._at.sink, self._at.transport) as opened:
            stub: Any = signed(sink_pb2_grpc.SinkServiceStub(opened))
            request = sink_pb2.ListJudgedSetsRequest(collection=COLLECTION)
            sets = [wire.from_proto(answer.judged_set) for answer in stub.ListJudgedSets(request, timeout=60)]
        return [label for each in sets if each.candidate_set.query.query_id in wanted for label in _graded(each)]


def _graded(each: JudgedSet) -> list[Label]:
    query_id = each.candidate_set.query.query_id
    return [
        Label(query_id, judgment.passage_id, judgment.outcome.p_relevant, judgment.prompt_tokens)
        for judgment in each.judgments
        if isinstance(judgment.outcome, Graded)
    ]
