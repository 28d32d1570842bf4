"""The preview: a small sample, measured anew, and what the whole feed would cost by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay import wire
from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import BackendUnavailable, InputError, MalformedInput
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.judging.preview import SEED, estimate, preview, read_pairs, sampled
from qrelay.runtime.servicer import streamed
from qrelay.types import Candidate, CandidateSet
from qrelay.v1 import reranker_pb2, reranker_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, candidate_set, make_judge, passage
from tests.serving import announce, serving


def write_pairs(path: Path, queries: int = 3, passages: int = 4) -> Path:
    rows = [
        {"query": f"{QUERY} {q}", "title": f"t{n}", "text": [COPYTREE, LOCK, COOKING][n % 3] + f" {q} {n}"}
        for q in range(queries)
        for n in range(passages)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder: Path, *arguments: str, **settings: str) -> Any:
    given = {"backend": "fake", "strategy": "graded", "data_dir": str(folder), **settings}
    env = {f"QRELAY_JUDGE__{name.upper()}": value for name, value in given.items()}
    return CliRunner().invoke(judge_command, ["preview", "--data-dir", str(folder), *arguments], env=env)


async def test_what_the_feed_costs_is_the_samples_cost_scaled_up() -> None:
    clock = iter([10.0, 12.0])
    sets = [candidate_set(COPYTREE, LOCK), candidate_set(COOKING, "more", query="Another?", query_id="q2")]
    seen = await preview(make_judge(), sets, lambda: next(clock))
    assert (seen.queries, seen.pairs, seen.seconds, seen.pairs_per_s) == (2, 4, 2.0, 2.0)
    whole = estimate(seen, queries=1000, per_query=25, price_per_million=0.5)
    assert (whole.queries, whole.pairs) == (1000, 25_000)
    assert whole.tokens == pytest.approx(25_000 * seen.judges[0].tokens / 4, abs=1)
    assert whole.money == pytest.approx(whole.tokens * 0.5e-6)
    assert whole.hours == pytest.approx(25_000 / 2.0 / 3600)


async def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(InputError, match="no pairs"):
        await preview(make_judge(), [])


def test_the_sample_is_the_same_each_time_of_the_size_asked_and_spread_over_queries() -> None:
    sets = [candidate_set(*[f"p{n}" for n in range(10)], query_id=f"q{q}") for q in range(20)]
    chosen = sampled(sets, 30)
    assert chosen == sampled(sets, 30)
    assert chosen != sampled(sets, 30, SEED + 1)
    assert [len(each.candidates) for each in chosen] == [5] * 6
    assert sum(len(each.candidates) for each in sampled(sets[:2], 30)) == 20
    assert sum(len(each.candidates) for each in sampled(sets, 7)) == 7


def test_only_marked_passages_are_sampled_where_some_are() -> None:
    (chosen,) = sampled([candidate_set("a", "b", "c", sampled=[1, 2])], 30)
    assert [each.passage.text for each in chosen.candidates] == ["b", "c"]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    for wrong in ('{"query": "q"}', "[1]", "no json"):
        file.write_text('{"query": "q", "text": "fine"}\n\n' + wrong + "\n")
        with pytest.raises(MalformedInput, match=rf"{file.name}:3"):
            read_pairs(file)


def test_the_command_shows_prompt_grades_speed_and_estimate(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    result = run(tmp_path, "--sets", str(pairs), "--feed-size", "1000", "--n", "6")
    assert result.exit_code == 0, result.output
    for part in (
        "Query: How do I copy",
        "6 pairs of 3 queries",
        "prompt tokens a pair",
        "1000 queries, 25000 pairs",
    ):
        assert part in " ".join(result.output.split()), result.output
    assert not (tmp_path / "judge-cache.sqlite").exists(), "a preview leaves no labels"


def test_failures_are_counted_by_reason(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    result = run(tmp_path, "--sets", str(pairs), "--json", fake__failure_rate="1.0")
    (judge,) = json.loads(result.output)["judges"]
    assert judge["missing"] == {"unavailable": 12}
    assert judge["grades"] == {}


def test_price_and_reranker_setting_decide_the_estimate(tmp_path: Path) -> None:
    config = tmp_path / "qrelay.yaml"
    config.write_text("judge: {budget: {price_per_million_tokens: 2.0}}\nreranker: {sample: 10, sample_head: 5}\n")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    arguments = ["--sets", str(pairs), "--config", str(config), "--feed-size", "50", "--json"]
    shown = json.loads(run(tmp_path, *arguments).output)["estimate"]
    assert shown["pairs"] == 500
    assert shown["money"] == pytest.approx(shown["tokens"] * 2e-6)
    assert json.loads(run(tmp_path, *arguments, "--per-query", "3").output)["estimate"]["pairs"] == 150


def test_pairs_that_people_graded_serve_as_well(tmp_path: Path) -> None:
    file = tmp_path / "slice.tsv"
    write_annotated_pairs(file, [GradedPair("q1", f"p{n}", n % 2, QUERY, "", f"{COPYTREE} {n}") for n in range(5)])
    assert json.loads(run(tmp_path, "--slice", str(file), "--json").output)["pairs"] == 5


@pytest.mark.parametrize("wrong", [[], ["--collection", "docs"]])
def test_a_source_must_be_named(tmp_path: Path, wrong: list[str]) -> None:
    assert run(tmp_path, *wrong).exit_code == 2


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Answers every query with the same three passages."""

    async def Retrieve(self, request: Any, context: Any) -> Any:
        candidates = tuple(Candidate(passage(text, n), ()) for n, text in enumerate((COPYTREE, LOCK, COOKING)))
        found = [CandidateSet(wire.from_proto(query), candidates, "v1") for query in request.queries]
        return retriever_pb2.RetrieveResponse(
            results=[retriever_pb2.RetrieveResult(candidate_set=wire.to_proto(each)) for each in found]
        )

    def StreamRetrieve(self, requests: Any, context: Any) -> Any:
        return streamed(requests, self.Retrieve, retriever_pb2.StreamRetrieveResponse, context)


class Reranker(reranker_pb2_grpc.RerankerServiceServicer):
    """Marks the first two."""

    async def Rerank(self, request: Any, context: Any) -> Any:
        for candidate_set_ in request.candidate_sets:
            for candidate in candidate_set_.candidates[:2]:
                candidate.sampled = True
        return reranker_pb2.RerankResponse(
            results=[reranker_pb2.RerankResult(candidate_set=each) for each in request.candidate_sets]
        )

    def StreamRerank(self, requests: Any, context: Any) -> Any:
        return streamed(requests, self.Rerank, reranker_pb2.StreamRerankResponse, context)


def test_a_running_installation_gives_the_sample(tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(f"query number {n}\n" for n in range(20)))
    arguments = ["--queries", str(queries), "--collection", "docs", "--feed-size", "100", "--json"]
    result = run(tmp_path, *arguments)
    assert isinstance(result.exception, BackendUnavailable)
    assert "qrelay up" in str(result.exception)
    retriever_name, reranker_name = "qrelay.v1.RetrieverService", "qrelay.v1.RerankerService"
    with (
        serving(
            retriever_name, lambda s: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(), s)
        ) as a,
        serving(reranker_name, lambda s: reranker_pb2_grpc.add_RerankerServiceServicer_to_server(Reranker(), s)) as b,
    ):
        announce(tmp_path, "retriever", a)
        announce(tmp_path, "reranker", b)
        result = run(tmp_path, *arguments)
    shown = json.loads(result.output)
    assert (shown["queries"], shown["pairs"], shown["estimate"]["pairs"]) == (6, 12, 200)
