"""Slices of graded pairs, and the worked examples that are taken from them."""

from __future__ import annotations

import gzip
import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, MalformedInput
from qrelay.formats.annotated_pairs import (
    GradedPair,
    corpus_texts,
    read_annotated_pairs,
    read_beir,
    relevant_from,
    write_annotated_pairs,
)
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.shots import pick_shots, read_shots, replies_of
from qrelay.judging.strategies import make_strategy
from tests.judging.samples import passage

QUOTE = '"'
HEADER = "query_id\tpassage_id\tgrade\tquery\ttitle\ttext\n"
BINARY = make_strategy("binary", "0-3").spec.scale
GRADED = make_strategy("graded", "0-3").spec.scale


def pair(query: int, passage: int, grade: int | None, words: int = 5, query_text: str = "") -> GradedPair:
    text = " ".join(["word"] * words)
    return GradedPair(f"q{query}", f"d{passage}", grade, query_text or f"question {query}?", "title", text)


def pairs() -> list[GradedPair]:
    """Twelve queries with one passage of each grade 1 to 4; the lengths differ."""
    return [
        pair(q, 10 * q + grade, grade, words=3 + (7 * q + grade) % 11) for q in range(12) for grade in range(1, 5)
    ]


def settings(path: Path, **changes: object) -> JudgeSettings:
    return JudgeSettings.model_validate({"slice": str(path), "backend": "fake", **changes})


# --- the file ---------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    written = [*pairs(), GradedPair("q é", "日本", 1, 'a "quoted" query', "", "", ("one [1]", "two\nlines"))]
    write_annotated_pairs(path, written, answers=True)
    assert read_annotated_pairs(path) == written


def test_tabs_and_line_breaks_become_blanks_on_the_line_and_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    written = [
        GradedPair("q", "d", 0, "a\tb", "c\r\nd", "e\u2028f\x0bg\x85h \\n"),
        GradedPair("q", "e", 0, "Q", "", "f\ng"),
        pair(1, 1, 2),
    ]
    write_annotated_pairs(path, written)
    assert path.read_text().splitlines()[1].split("\t")[3:6] == ["a b", "c d", "e f g h \\n"]
    assert read_annotated_pairs(path) == written


def test_a_text_that_was_edited_in_the_file_counts_as_it_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    write_annotated_pairs(path, [GradedPair("q", "d", 0, "Q", "T", "two\nlines")])
    path.write_text(path.read_text().replace("two lines", "two words"))
    assert read_annotated_pairs(path)[0].text == "two words"


def test_rows_without_a_grade_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "slice.tsv"
    write_annotated_pairs(path, [pair(1, 1, None), pair(2, 2, 0), pair(3, 3, None)])
    caplog.set_level(logging.INFO)
    assert [each.query_id for each in read_annotated_pairs(path)] == ["q2"]
    assert "2 of the 3 rows" in caplog.text


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    path.write_bytes(
        b"\xef\xbb\xbfwhy\ttext\tgrade\tquery\tquery_id\tpassage_id\ttitle\r\nx\tT\t2\tQ\tq\td\t\r\n\r\n"
    )
    assert read_annotated_pairs(path) == [GradedPair("q", "d", 2, "Q", "", "T")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("query_id\tgrade\tquery\ttext\nq\t1\tQ\tT\n", r"s\.tsv:1: .*passage_id, title"),
        (HEADER + "q\td\t1\tQ\tt\tT\nq\td2\tgood\tQ\tt\tT\n", r"s\.tsv:3: .*'good'"),
        (HEADER + "q\td\t1\tQ\tT\n", r"s\.tsv:2: 5 fields for 6"),
        (HEADER + "\td\t1\tQ\tt\tT\n", r"s\.tsv:2: query_id is empty"),
        (HEADER + "q\td\t1\tQ\tt\tT\nq\td\t2\tQ\tt\tT\n", r"s\.tsv:3: .*line 2"),
        (HEADER.strip() + "\treference_answers\nq\td\t1\tQ\tt\tT\t[1, 2]\n", r"s\.tsv:2: no list of texts"),
        ("", "is empty"),
    ],
)
def test_a_row_that_does_not_hold_is_named_with_file_and_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "s.tsv"
    path.write_text(content)
    with pytest.raises(MalformedInput, match=said):
        read_annotated_pairs(path)


def test_a_slice_that_is_not_there_or_no_text_is_malformed_input(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, said in (("absent", "absent cannot be read"), ("binary", "binary:1: not UTF-8")):
        with pytest.raises(MalformedInput, match=said):
            read_annotated_pairs(tmp_path / name)


# --- BEIR -------------------------------------------------------------------------------------------------------


def beir(folder: Path, qrels: str = "q1\td1\t2\nq1\td2\t0\n") -> tuple[Path, Path, Path]:
    corpus, queries, judged = folder / "corpus.jsonl.gz", folder / "queries.jsonl", folder / "qrels.tsv"
    documents = [
        {"_id": "d1", "title": "T", "text": "one two three four"},
        {"_id": "d2", "text": "x"},
        {"_id": "d3", "text": ""},
    ]
    corpus.write_bytes(gzip.compress("\n".join(map(json.dumps, documents)).encode()))
    queries.write_text('{"_id": "q1", "text": "Q?", "metadata": {}}\n')
    judged.write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return corpus, queries, judged


def test_a_beir_collection_gives_its_judged_pairs_with_cut_passages(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"_id": "q1", "answers": "['first one', \"it's second\"]"}) + "\n")
    read = read_beir(*beir(tmp_path), answers=answers, max_words=3)
    given = ("first one", "it's second")
    assert read == [
        GradedPair("q1", "d1", 2, "Q?", "T", "one two three", given),
        GradedPair("q1", "d2", 0, "Q?", "", "x", given),
    ]


def test_a_corpus_is_read_whole_and_cut_alike(tmp_path: Path) -> None:
    corpus, _, _ = beir(tmp_path)
    assert corpus_texts(corpus, max_words=3) == [("T", "one two three"), ("", "x"), ("", "")]


def test_a_damaged_archive_is_malformed_input(tmp_path: Path) -> None:
    corpus, queries, qrels = beir(tmp_path)
    for damaged, said in ((corpus.read_bytes()[:-20], " is damaged after line"), (b"no archive", ":1: not JSON")):
        corpus.write_bytes(damaged)
        with pytest.raises(MalformedInput, match=rf"corpus\.jsonl\.gz{said}"):
            read_beir(corpus, queries, qrels)


@pytest.mark.parametrize(
    ("answers", "texts"),
    [(["a", " ", "b"], ("a", "b")), ('["a", "b"]', ("a", "b")), ("[sic] plain", ("[sic] plain",)), ("a", ("a",))],
)
def test_reference_answers_come_as_lists_literals_or_one_text(
    tmp_path: Path, answers: object, texts: tuple[str, ...]
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"_id": "q1", "answers": answers}))
    assert read_beir(*beir(tmp_path), answers=path)[0].reference_answers == texts


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("q1\td1\t1\nq1\tnone\t1\n", r"qrels\.tsv:3: 'none' is not in .*corpus"),
        ("q9\td1\t1\n", r"qrels\.tsv:2: the query 'q9' is not in .*queries"),
        ("q1\td1\tgood\n", r"qrels\.tsv:2: the grade 'good'"),
        ("q1\t0\td1\t1\n", r"qrels\.tsv:2: 4 fields"),
        ("q1\td1\t1\nq1\td1\t2\n", r"qrels\.tsv:3: q1 and d1 have another grade above"),
    ],
)
def test_a_qrel_that_does_not_hold_is_named(tmp_path: Path, qrels: str, said: str) -> None:
    with pytest.raises(MalformedInput, match=said):
        read_beir(*beir(tmp_path, qrels))


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    corpus, queries, qrels = beir(tmp_path)
    queries.write_text('{"_id": "q1", "text": "Q"}\n{"_id": "q2"}\n')
    with pytest.raises(MalformedInput, match=r"queries\.jsonl:2: no text"):
        read_beir(corpus, queries, qrels)


# --- worked examples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grades", "relevant"), [((1, 2, 3, 4), 3), ((0, 1, 2, 3), 2), ((0, 1), 1), ((0, 1, 2), 2), ((1, 4), 3)]
)
def test_the_upper_half_of_a_slices_grades_is_relevant(grades: tuple[int, ...], relevant: int) -> None:
    assert relevant_from(grades) == relevant


@pytest.mark.parametrize(
    ("grades", "scale", "replies"),
    [
        ((1, 2, 3, 4), BINARY, ["NO", "NO", "YES", "YES"]),
        ((1, 2, 3, 4), GRADED, ["0", "1", "2", "3"]),
        ((0, 1), GRADED, ["0", "3"]),
        ((0, 1, 2), GRADED, ["0", "2", "3"]),
        ((0, 1, 2, 3, 4, 5, 6), GRADED, ["0", "1", "1", "2", "2", "3", "3"]),
    ],
)
def test_peoples_grades_are_mapped_onto_the_scale(grades: tuple[int, ...], scale: object, replies: list[str]) -> None:
    mapped = replies_of([pair(n, n, grade) for n, grade in enumerate(grades)], scale)
    assert [mapped[grade] for grade in grades] == replies


def test_a_slice_of_one_grade_gives_no_examples() -> None:
    with pytest.raises(MalformedInput, match="two different grades"):
        pick_shots([pair(n, n, 1) for n in range(9)], BINARY, 2)


@pytest.mark.parametrize("count", [2, 4, 8, 12])
def test_examples_are_balanced_and_never_two_of_one_query(count: int) -> None:
    shots = pick_shots(pairs(), GRADED, count)
    assert len({shot.query for shot in shots}) == count == len(shots)
    counts = Counter(shot.reply for shot in shots)
    assert max(counts.values()) - min(counts[reply] for reply in ("0", "3")) <= 1
    assert count < 4 or max(counts.values()) - min(counts[reply] for reply in "0123") <= 1


def test_the_same_pairs_give_the_same_examples_in_whatever_order_they_come() -> None:
    assert pick_shots(pairs(), GRADED, 6) == pick_shots(pairs()[::-1], GRADED, 6)


def test_short_passages_are_preferred_and_empty_ones_left_out() -> None:
    lengths = {0: 0, 1: 90, 2: 80, 3: 4, 4: 70, 5: 60}
    given = [pair(q, q, q % 2, words=words) for q, words in lengths.items()]
    assert [len(shot.text.split()) for shot in pick_shots(given, BINARY, 2)] == [70, 4]


def test_two_queries_with_the_same_text_are_one() -> None:
    given = [pair(q, q, q % 2, query_text="the same?") for q in range(6)]
    with pytest.raises(ConfigError, match="gives 1 worked examples"):
        pick_shots(given, BINARY, 2)


def test_settings_give_examples_that_the_prompt_shows_before_the_query(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    write_annotated_pairs(path, pairs())
    shots = read_shots(settings(path, shots=3, strategy="graded", scale="1-4"))
    strategy = make_strategy("graded", "1-4", shots=shots)
    assert [reply for _, reply in strategy.prompt("Q", passage("a text")).shots] == [shot.reply for shot in shots]
    assert strategy.spec.prompt_hash != make_strategy("graded", "1-4").spec.prompt_hash
    assert read_shots(settings(path, shots=3, strategy="query_likelihood")) == ()


def test_more_examples_than_queries_is_an_error_that_names_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "slice.tsv"
    write_annotated_pairs(path, [pair(1, 1, 0), pair(2, 2, 1)])
    with pytest.raises(ConfigError, match=r"judge\.slice gives 2 .*judge\.shots asks for 5"):
        read_shots(settings(path, shots=5, strategy="binary"))


@pytest.mark.parametrize("exact", ["{}", "yes", "[1]", '["Q", "", "another"]', '["Q", "T"]', '["\\ud800", "", "T"]'])
def test_a_column_exact_of_somebody_elses_is_not_read(tmp_path: Path, exact: str) -> None:
    path = tmp_path / "slice.tsv"
    path.write_text(f"query_id\tpassage_id\tgrade\tquery\ttitle\ttext\texact\nq\td\t2\tQ\t\tT\t{exact}\n")
    (found,) = read_annotated_pairs(path)
    assert (found.query, found.title, found.text) == ("Q", "", "T")


@pytest.mark.parametrize("quoted", ['"', '",'])
def test_a_file_that_a_spreadsheet_saved_says_the_same_pairs(tmp_path: Path, quoted: str) -> None:
    path, texts = tmp_path / "slice.tsv", ("plain", "a, comma", 'says "hi"', '"quoted"', "two\nlines", 'a "b"\n, c')
    given = [GradedPair(f"q{n}", "d#0", 1, text, "", text, metadata={"a": text}) for n, text in enumerate(texts)]
    write_annotated_pairs(path, given, metadata=True)
    assert read_annotated_pairs(path) == given

    def saved(field: str) -> str:
        return f'"{field.replace(QUOTE, 2 * QUOTE)}"' if set(field) & set(quoted) else field

    path.write_text("".join("\t".join(map(saved, line.split("\t"))) + "\n" for line in path.read_text().splitlines()))
    assert read_annotated_pairs(path) == given
