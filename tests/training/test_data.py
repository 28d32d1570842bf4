"""Rows of training data: each positive once an epoch, negatives round and round, padding that counts for nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, MalformedInput
from qrelay.training.cross_encoder import CrossEncoderKind
from qrelay.training.data import Document, Example, Reading, expand, load_examples, read_examples, require_labels
from qrelay.training.experiment import load_experiment
from qrelay.training.posterior import LEAST, with_posterior
from qrelay.training.rows import PADDING, as_dataset, as_lists, as_pairs, rows_of, with_random_negatives
from qrelay.training.stages import reading_of
from tests.training import tiny


def example(positives: int, negatives: int, others: int = 0) -> Example:
    return Example(
        "q1",
        "a query",
        tuple(Document(f"p{i}", 0.9 - i / 10) for i in range(positives)),
        tuple(Document(f"n{i}", 0.1) for i in range(negatives)),
        tuple(Document(f"o{i}", 0.3) for i in range(others)),
    )


def read(path: Path, **reading: object) -> Example:
    found = list(read_examples([path], Reading(**reading)))  # type: ignore[arg-type]
    return found[0]


def texts(documents: tuple[Document, ...]) -> list[str]:
    return [each.text for each in documents]


def test_every_positive_is_in_one_row_and_the_negatives_go_round() -> None:
    rows = list(rows_of([example(3, 4)], documents=4, max_positives=2))
    assert [texts for _, texts, _ in rows] == [["p0", "p1", "n0", "n1"], ["p2", "n2", "n3", "n0"]]
    assert rows[0][2][:4] == [1, 1, 0, 0]
    assert rows[0][2][4:8] == pytest.approx([0.9, 0.8, 0.1, 0.1])


def test_a_short_row_is_padded_and_a_negative_comes_once() -> None:
    ((_, texts, labels),) = rows_of([example(1, 2)], documents=5, max_positives=2)
    assert texts == ["p0", "n0", "n1", "", ""]
    assert labels[10:] == [0.0, 1.0, 2.0, PADDING, PADDING]


def test_equal_texts_have_one_key_across_queries() -> None:
    rows = list(rows_of([example(1, 1), example(1, 2)], documents=3, max_positives=1))
    assert rows[0][2][6] == rows[1][2][6]
    assert rows[1][2][8] not in rows[0][2][6:]


def test_an_export_is_read_as_the_retriever_reads_passages(tmp_path: Path) -> None:
    passage = {
        "passage_id": "d#0",
        "doc_id": "d",
        "title": "T",
        "text": "x",
        "grade": 2,
        "p_relevant": 0.7,
        "reason": "",
    }
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "positives": [passage], "negatives": []}) + "\n")
    (found,) = read_examples(expand([str(tmp_path / "*.jsonl")]))
    assert found.positives == (Document("T\nx", 0.7),)


def test_a_bad_line_and_an_empty_glob_are_named(tmp_path: Path) -> None:
    path = tmp_path / "triples.jsonl"
    path.write_text('{"query_id": "q"}\n')
    with pytest.raises(MalformedInput, match=r"triples\.jsonl:1"):
        list(read_examples([path]))
    with pytest.raises(ConfigError, match="qrelay export triples"):
        expand([str(tmp_path / "nothing*")])


def test_the_dataset_is_the_same_for_the_same_seed() -> None:
    rows = list(rows_of([example(5, 9)], documents=4, max_positives=1))
    first, again, other = (as_dataset(rows, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict() == again.to_dict() != other.to_dict()
    assert first.column_names == ["query", "document_0", "document_1", "document_2", "document_3", "label"]
    with pytest.raises(ConfigError, match="no example"):
        as_dataset([], seed=1)


def test_with_every_label_an_epoch_shows_each_document_and_repeats_positives_alone() -> None:
    rows = list(rows_of([example(1, 3, 2)], documents=4, max_positives=2, every_label=True))
    assert [texts for _, texts, _ in rows] == [["p0", "n0", "n1", "n2"], ["p0", "o0", "o1", "n0"]]
    assert rows[1][2][:4] == [1, -1, -1, 0]


def test_an_example_without_a_positive_is_a_row_of_the_rest() -> None:
    ((_, held, labels),) = rows_of([example(0, 1, 2)], documents=4, max_positives=2)
    assert held == ["n0", "o0", "o1", ""]
    assert labels[:4] == [0, -1, -1, 0]


def test_both_exports_of_the_same_labels_give_the_same_example(tmp_path: Path) -> None:
    triples, labels = tiny.triples(tmp_path / "t.jsonl"), tiny.labels(tmp_path / "l.jsonl")
    assert list(read_examples([triples])) == list(read_examples([labels]))


def test_what_mining_kept_out_is_neither_positive_nor_negative(tmp_path: Path) -> None:
    found = read(tiny.labels(tmp_path / "l.jsonl", 1), others=True)
    assert texts(found.positives) == ["the seat is city t0"]
    assert texts(found.negatives) == ["country c0 has a capital", "capital letters in country c0"]
    assert texts(found.others) == ["the capital of country c0 is in country c0"]


def test_relevance_by_target_makes_positives_of_its_own_and_negatives_of_minings_alone(tmp_path: Path) -> None:
    found = read(tiny.labels(tmp_path / "l.jsonl", 1), positives="target", relevant_from=0.15, others=True)
    assert [each.target for each in found.positives] == [0.9, 0.4, 0.2]
    assert [each.target for each in found.negatives] == [0.1]


def test_lines_without_roles_are_read_by_target(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    passages = [{"title": "", "text": text, "p_relevant": p} for text, p in (("a", 0.2), ("b", 0.8))]
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "passages": passages}) + "\n")
    found = read(path)
    assert (texts(found.positives), texts(found.negatives)) == (["b"], ["a"])


def test_answer_likelihood_is_a_target_that_rises_and_what_has_none_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    held = [tiny.passage("a", 0.9, answer_nll=-0.5), tiny.passage("b", 0.1, answer_nll=0.25), tiny.passage("c", 0.1)]
    roles = [{**each, "role": role} for each, role in zip(held, ("positive", "negative", "negative"), strict=True)]
    roles[2]["answer_nll"] = None
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "passages": roles}) + "\n")
    examples, dropped = load_examples([path], Reading(target="answer_nll"))
    assert [each.target for each in examples[0].documents] == [0.5, -0.25]
    assert dropped["documents_without_target"] == 1


def test_grades_are_brought_to_shares_of_what_the_data_hold(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    held = [
        tiny.passage(str(grade), 0.5, grade=grade, role=role) for grade, role in ((4, "positive"), (1, "negative"))
    ]
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "passages": held}) + "\n")
    (found,), _ = load_examples([path], Reading(target="grade"))
    assert [each.target for each in found.documents] == [1.0, 0.0]


def test_examples_that_train_nothing_are_dropped_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    without = [tiny.passage("a", 0.3, role=""), tiny.passage("b", 0.1, role="negative")]
    flat = [tiny.passage("a", 0.1, role=""), tiny.passage("b", 0.1, role="negative")]
    lines = [{"query_id": str(n), "query": "why?", "passages": held} for n, held in enumerate((without, flat))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_examples([path], Reading(others=True))[1]["no_positive"] == 2
    kept, dropped = load_examples([path], Reading(others=True, need_positive=False))
    assert [each.query_id for each in kept] == ["0"]
    assert dropped["one_target"] == 1


def test_human_labels_in_a_weak_stage_are_refused_naming_the_first_and_the_count(tmp_path: Path) -> None:
    path = tiny.labels(tmp_path / "l.jsonl", 1)
    human = tiny.labels(tmp_path / "h.jsonl", 2, human=True)
    weak, people = (load_examples([each], Reading())[0] for each in (path, human))
    require_labels(weak, "weak", "first")
    require_labels(people, "human", "second")
    require_labels(weak + people, "mixed", "third")
    with pytest.raises(ConfigError, match=r"stage first .* 6 of its labels are people's, the first of query q0"):
        require_labels(people, "weak", "first")
    with pytest.raises(ConfigError, match=r"3 of its labels are judges'.*--judge human"):
        require_labels(weak, "human", "second")


def test_lists_start_at_zero_and_one_of_equal_targets_is_left_out() -> None:
    order = [Document("a", -0.5), Document("b", 0.5)], [Document("c", 0.5), Document("d", 0.5)]
    (row,) = as_lists([("q", each) for each in order], seed=1)
    assert row == {"query": "q", "docs": ["a", "b"], "labels": [0.0, 1.0]}


def test_pairs_come_once_each() -> None:
    found = as_pairs([("q", [Document("a", 0.9)]), ("q", [Document("a", 0.9), Document("b", 0.1)])], seed=1)
    assert sorted(found["document"]) == ["a", "b"]


def test_random_negatives_are_documents_of_other_queries_and_never_ones_own() -> None:
    shared = Document("shared", 0.9)
    lists = [("a", [shared, Document("a1", 0.1)]), ("b", [shared, Document("b1", 0.8)]), ("a", [Document("a2", 0.0)])]
    found = list(with_random_negatives(lists, 1, seed=3))
    assert [query for query, _ in found] == ["a", "b", "a"]
    assert found[0][1][:2] == lists[0][1]
    assert found[0][1][2:] == [Document("b1", 0.0)] == found[2][1][1:]
    assert {each.text for each in found[1][1][2:]} <= {"a1", "a2"}


def test_without_random_negatives_lists_stay_as_they_are() -> None:
    lists = [("a", [Document("a1", 0.1)]), ("b", [Document("b1", 0.8)])]
    assert list(with_random_negatives(lists, 0, seed=3)) == lists


def labelled(passage_id: str, p_relevant: float, **scores: float) -> dict[str, object]:
    return {"passage_id": passage_id, "title": "", "text": passage_id, "p_relevant": p_relevant, "role": "",
            "human": False, "hard": False, "scores": scores}  # fmt: skip


def test_a_prior_makes_the_posterior_of_bayes_rule() -> None:
    passages = [labelled("a", 0.6, dense=0.5), labelled("b", 0.3, dense=0.6), labelled("c", 0.0, dense=0.5)]
    found = [each["p_relevant"] for each in with_posterior(passages, "dense", 0.1)]
    weights = [0.6 * math.exp(5.0), 0.3 * math.exp(6.0), LEAST * math.exp(5.0)]
    assert found == pytest.approx([weight / sum(weights) for weight in weights])


def test_a_document_without_the_priors_score_has_no_target(tmp_path: Path) -> None:
    negative = {**labelled("c", 0.1, dense=0.2), "role": "negative"}
    passages = [labelled("a", 0.9, dense=0.9), labelled("b", 0.8, bm25=3.0), negative]
    row = {"query_id": "q", "query": "?", "passages": passages}
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (example,), dropped = load_examples([path], Reading(positives="target", prior="dense"))
    assert [each.text for each in example.documents] == ["a", "c"]
    assert dropped["documents_without_target"] == 1
    assert sum(each.target for each in example.documents) == pytest.approx(1.0)


def test_a_prior_that_no_document_has_is_named(tmp_path: Path) -> None:
    path = tiny.labels(tmp_path / "l.jsonl")
    with pytest.raises(ConfigError, match=r"lack p_relevant, or a score of the prior's system 'elsewhere'"):
        load_examples([path], Reading(positives="target", prior="elsewhere"))


def test_where_nothing_is_left_every_reason_is_told(tmp_path: Path) -> None:
    passages = [labelled("a", 0.2), {**labelled("b", 0.1), "p_relevant": None}]
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"query_id": "q", "query": "why?", "passages": passages}) + "\n")
    with pytest.raises(ConfigError, match=r"\(documents_without_target 1, no_positive 1\); .* lack p_relevant:"):
        load_examples([path], Reading(positives="target"))


def test_a_prior_needs_scores_which_triples_have_not(tmp_path: Path) -> None:
    path = tmp_path / "triples.jsonl"
    positive = {key: value for key, value in labelled("a", 0.9).items() if key != "scores"}
    path.write_text(json.dumps({"query_id": "q", "query": "?", "positives": [positive], "negatives": []}) + "\n")
    with pytest.raises(MalformedInput, match="qrelay export labels"):
        load_examples([path], Reading(prior="dense"))


def test_an_experiments_prior_and_random_negatives_reach_the_data() -> None:
    overrides = ("prior=dense", "temperature=0.1", "strangers=1", "documents=3", "max_positives=1")
    bi_encoder = load_experiment("kl_margin", overrides)
    assert (reading_of(bi_encoder).prior, reading_of(bi_encoder).prior_temperature) == ("dense", 0.1)
    examples = [Example(name, name, (Document(f"{name}+", 1.0),), (Document(f"{name}-", 0.0),)) for name in "abc"]
    pairs = CrossEncoderKind().dataset(examples, load_experiment("cross_encoder", overrides))
    assert sorted(pairs["query"]) == sorted("abc" * 3)
    others = [row for row in pairs if row["document"][0] != row["query"]]
    assert len(others) == 3 and not any(row["label"] for row in others)
