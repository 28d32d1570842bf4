"""`make judge-table`: what is in the cache becomes figures, what is not is told, and what was measured stays."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import judge_table, judge_transfer
from benchmarks.judge_page import BEGIN, END, TRANSFER, filled, markdown, transfer
from benchmarks.judge_table import ROWS, figures, taus
from benchmarks.judge_transfer import transferred
from benchmarks.public import COLLECTIONS
from benchmarks.tables import BOTH_DENSE, CONSENSUS, JUDGES, Kept, agreeing, recorded
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.qualification.systems import evaluate
from qrelay.judging.qualification.table import Table, measure
from qrelay.judging.strategies.query_likelihood import QueryLikelihood
from qrelay.llm.base import Weights
from qrelay.llm.fake import FakeBackend
from qrelay.models.embedder import HashEmbedder
from tests.judging.qualification.running import overlapping
from tests.judging.qualification.tables import graded, noisy

PAIRS = [overlapping(q, n, int(n > 4) + int(n > 6)) for q in range(6) for n in range(2, 8)]
PAGE = f"before\n{BEGIN}\nold\n{END}\n{BEGIN.replace('table', TRANSFER)}\n{END.replace('table', TRANSFER)}\nafter\n"
SCORES = {name: np.linspace(0.0, 1.0, len(PAIRS)) for name in (*BOTH_DENSE, "bm25")}


def label(path: Path, pairs: Sequence[GradedPair], model: str) -> Table:
    """The pairs judged by the double under a model's name, into the cache."""
    backend, cache = FakeBackend(), SqlCache(str(path))
    backend.weights = Weights(model, "1", "none")
    table = asyncio.run(measure(Panel({"0.5B": Judge(backend, QueryLikelihood(), cache)}, cache), pairs, SCORES, 1))
    cache.close()
    return table


def read(path: Path) -> tuple[Table, dict[str, int]]:
    cache = SqlCache(str(path))
    try:
        return recorded(cache, PAIRS, SCORES, 1)
    finally:
        cache.close()


def test_labels_come_from_the_cache_as_they_were_measured(tmp_path: Path) -> None:
    there = label(tmp_path / "cache.sqlite", PAIRS, JUDGES["0.5B"])
    table, counts = read(tmp_path / "cache.sqlite")
    assert list(table.labels) == ["0.5B"]
    assert table.column("0.5B").tolist() == there.column("0.5B").tolist()
    assert table.judges == there.judges
    assert table.cost("0.5B") == 0
    assert counts == {"0.5B": len(PAIRS), "1.5B": 0}


def test_a_judge_with_labels_of_some_pairs_only_is_told_and_not_computed(tmp_path: Path) -> None:
    label(tmp_path / "cache.sqlite", PAIRS, JUDGES["0.5B"])
    label(tmp_path / "cache.sqlite", PAIRS[:10], JUDGES["1.5B"])
    table, counts = read(tmp_path / "cache.sqlite")
    assert list(table.labels) == ["0.5B"]
    whole = {row: inputs for row, inputs in ROWS.items() if len(inputs) > 1 and not {"1.5B", CONSENSUS} & {*inputs}}
    rows = figures(evaluate(table, whole), counts, None)
    assert list(rows) == list(ROWS)
    assert rows["query likelihood, 1.5B"] == {"inputs": ["1.5B"], "lacking": ["1.5B 10 of 36"]}
    assert rows["`fused`: 0.5B, 1.5B"]["lacking"] == ["1.5B 10 of 36"]
    assert rows["query likelihood, 0.5B"]["auc"] > 0.9
    assert rows["query likelihood, 0.5B"]["against"]["b"] in BOTH_DENSE
    assert "against" not in rows["all-MiniLM-L6-v2 cosine"]


def test_labels_of_other_models_are_not_taken(tmp_path: Path) -> None:
    label(tmp_path / "cache.sqlite", PAIRS, "another")
    table, counts = read(tmp_path / "cache.sqlite")
    assert (dict(table.labels), counts) == ({}, {"0.5B": 0, "1.5B": 0})


def test_the_page_has_a_row_a_system_and_the_published_ones_beside_them() -> None:
    measured = {"auc": 0.7, "auc_ci": [0.65, 0.75], "auc_within_query": 0.72, "kappa_binary": 0.3,
                "kappa_binary_ci": [None, None], "kappa_four_point": 0.1, "kappa_graded": 0.2,
                "against": {"difference": 0.01, "p": 0.25}}  # fmt: skip
    rows = {"one": measured, "other": {"inputs": ["1.5B"], "lacking": ["1.5B 1 of 2"]}}
    found = {"llmjudge-dl23": {"queries": 25, "pairs": 4412, "relevant": 10, "embedders": "torch", "rows": rows}}
    page = filled(PAGE, found, COLLECTIONS)
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    lines = page.splitlines()
    assert "| one | 0.700 (0.650 to 0.750) | 0.720 | 0.300 | 0.100 | 0.200 | +0.010, p 0.250 |" in lines
    assert "| other | not measured (labels: 1.5B 1 of 2) |  |  |  |  |  |" in lines
    assert "| Llama-3-70B, four prompts (published) | 0.766 |  | 0.371 | 0.209 |  |  |" in lines
    assert "**TREC DL19**: not measured yet." in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lost its markers"):
        filled("a page", {}, COLLECTIONS)


def test_the_page_of_the_docs_is_that_of_the_figures_beside_it() -> None:
    found = judge_table.kept()
    assert set(found) <= {*COLLECTIONS, TRANSFER}
    page = judge_table.PAGE.read_text("utf8")
    assert markdown(found, COLLECTIONS) in page
    assert transfer(found, COLLECTIONS) in page


def test_vectors_of_passages_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["copy a folder", "simmer for an hour"]
    first = Kept("all-MiniLM-L6-v2", tmp_path).encode(texts, "document")
    again = Kept("all-MiniLM-L6-v2", tmp_path)
    monkeypatch.setattr(again.model, "encode_document", None)
    assert again.encode(texts, "document").tolist() == first.tolist()
    assert again.encode(texts, "query").shape == first.shape


def test_grades_that_are_peoples_own_order_the_runs_as_people_do(tmp_path: Path) -> None:
    label(tmp_path / "cache.sqlite", PAIRS, JUDGES["0.5B"])
    table, _ = read(tmp_path / "cache.sqlite")
    for name, sign in (("up", 1), ("down", -1), ("first", 0)):
        lines = [f"{p.query_id} Q0 {p.passage_id} 1 {sign * n} {name}\n" for n, p in enumerate(PAIRS)]
        (tmp_path / f"{name}.run.gz").write_bytes(gzip.compress("".join(lines).encode()))
    system = evaluate(table, {}).systems["0.5B"]
    assert system.predictions is not None
    own = replace(system, predictions=replace(system.predictions, grade=table.grades))
    assert taus(table, own, tmp_path)["tau"] == pytest.approx(1.0)
    turned = replace(system, predictions=replace(system.predictions, grade=2 - table.grades))
    found = taus(table, turned, tmp_path)["tau"]
    assert isinstance(found, float)
    assert found < 1.0


def test_a_map_is_compared_with_that_of_the_collection_itself() -> None:
    here, alike, other = (noisy(seed, queries=24) for seed in (1, 2, 3))
    labels = zip(other.labels["a"], other.p_relevant("a"), strict=True)
    turned = {**other.labels, "a": tuple(replace(each, outcome=graded(1 - p)) for each, p in labels)}
    tables = {"here": here, "alike": alike, "turned": replace(other, labels=turned)}
    records = transferred(tables, {"ensemble": ("a", "dense"), "lacking": ("c",)})
    cells = {(each["fitted_on"], each["measured_on"]): each for each in records}
    assert len(cells) == len(records) == 9
    assert "against_own" not in cells["here", "here"]
    assert abs(cells["alike", "here"]["against_own"]["auc"]["difference"]) < 0.02
    worse = cells["turned", "here"]["against_own"]["auc"]
    assert worse["ci"][1] < 0
    shown = judge_transfer.markdown(records, {"here": "Here"})
    assert "| ensemble | Here |" in shown
    assert {line.count("|") for line in shown.splitlines()} == {6}
    assert "lacking" not in shown


def test_what_was_measured_on_a_collection_that_is_left_out_stays() -> None:
    kept = [{"fitted_on": one, "measured_on": other} for one in ("here", "there") for other in ("here", "there")]
    assert judge_transfer.of_others(kept, {"here": noisy(1)}) == kept[1:]


def test_a_collection_without_labels_of_a_judge_is_in_no_row() -> None:
    table = noisy(1)
    records = transferred({"one": table, "other": replace(table, labels={})}, {"a": ("a",)})
    assert [each["measured_on"] for each in records] == ["one"]
    assert judge_transfer.markdown([], {}).startswith("Not measured yet")


def test_the_consensus_of_a_list_needs_no_judges_labels() -> None:
    table = agreeing(Table(tuple(PAIRS), 1, {}, {}, SCORES), HashEmbedder())
    assert list(table.labels) == [CONSENSUS]
    assert np.isfinite(table.column(CONSENSUS)).all()
    evaluation = evaluate(table, {})
    assert not evaluation.systems[CONSENSUS].uses_stage_scores
