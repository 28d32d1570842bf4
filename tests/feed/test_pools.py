"""Pools: what systems returned becomes candidate sets, whole, with every system's score and rank, fed once."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from qrelay import wire
from qrelay.errors import InputError, InvalidQuery, MalformedInput
from qrelay.feed.feeder import Feeder, FeedReport
from qrelay.feed.journal import Journal
from qrelay.feed.pool import Pools, Texts, of_candidates, of_runs, pool_runs, run_files
from qrelay.feed.windows import Windows
from qrelay.formats.candidates import parse_candidates
from qrelay.ranks import current_model
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.topology import Queue
from qrelay.types import CandidateSet, Query, Score
from tests.feed.test_feeder import lines

TEXTS: Texts = {name: (f"Title {name}", f"text of {name}", {}) for name in "abcd"}


def run(path: Path, tag: str, **rankings: Sequence[str]) -> Path:
    """A run that ranks these documents for these queries, the first best."""
    rows = [
        f"{query_id} Q0 {doc_id} {rank} {10 - rank} {tag}\n"
        for query_id, found in rankings.items()
        for rank, doc_id in enumerate(found, 1)
    ]
    path.write_text("".join(rows))
    return path


def two_runs(folder: Path) -> list[Path]:
    return [run(folder / "one.run", "one", q1="abc", q2="d"), run(folder / "two.run", "two", q1="cda")]


def reader(files: Sequence[Path], depth: int = 2, texts: Texts = TEXTS) -> Pools:
    pool = pool_runs(files, depth)
    return Pools(of_runs(pool, "docs", "auto"), texts, Windows(), pool.version)


async def feed(
    broker: MemoryBroker, path: Path, read: Pools | Literal["auto"], items: Iterable[str], query_round: int = 0
) -> FeedReport:
    with Journal(path) as journal:
        feeder = Feeder(broker, journal, collection="docs", query_round=query_round, read=read)
        return await feeder.feed(lines(*items))


async def sets(broker: MemoryBroker) -> list[CandidateSet]:
    messages = await broker.fetch(Queue.RERANKED, 1000, 0.01)
    return [record for m in messages if isinstance(record := wire.decode(m.payload, m.headers), CandidateSet)]


def test_a_pool_is_the_union_of_every_systems_first_documents_with_all_their_ranks(tmp_path: Path) -> None:
    pool = pool_runs(two_runs(tmp_path), 2)
    assert pool.systems == ("one", "two")
    found = {each.doc_id: each.scores for each in pool.found["q1"]}
    assert list(found) == ["a", "c", "b", "d"], "by the best rank, then by id"
    assert found["a"] == (Score("one", 9.0, 1), Score("two", 7.0, 3)), "a rank beyond the depth is kept"
    assert found["b"] == (Score("one", 8.0, 2),)
    assert [each.doc_id for each in pool.found["q2"]] == ["d"]
    assert [each.doc_id for each in pool_runs(two_runs(tmp_path), 1).found["q1"]] == ["a", "c"]


def test_runs_are_files_plain_or_gzip_or_all_of_a_folder_and_one_may_hold_several_systems(
    tmp_path: Path,
) -> None:
    both = b"".join(path.read_bytes() for path in two_runs(tmp_path))
    folder = tmp_path / "runs"
    folder.mkdir()
    with pytest.raises(MalformedInput, match="holds no file"):
        run_files([folder])
    (folder / "both.run.gz").write_bytes(gzip.compress(both))
    (folder / ".hidden").write_text("no run")
    assert run_files([folder]) == [folder / "both.run.gz"]
    assert pool_runs(run_files([folder]), 2) == pool_runs(two_runs(tmp_path), 2)


def test_systems_that_share_a_tag_are_named_by_their_files_and_never_mixed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [run(tmp_path / "bm25.run", "default", q1="ab"), run(tmp_path / "dense.trec.gz", "default", q1="bc")]
    assert pool_runs(files, 2).systems == ("bm25", "dense")
    twin = run(tmp_path / "x" / "bm25.txt", "default", q1="d")
    with pytest.raises(MalformedInput, match=r"2 systems have the name 'bm25' .*tag of its own"):
        pool_runs([*files, twin], 2)


def test_the_systems_own_ranks_count_and_where_a_run_gives_none_its_scores_do(tmp_path: Path) -> None:
    distances = run(tmp_path / "near", "near", q1="abc").read_text().replace(" 9 ", " 0.5 ")
    assert _pooled(tmp_path, distances, 1) == {"a": Score("near", 0.5, 1)}
    from_zero = "q1 Q0 a 0 3 t\nq1 Q0 b 1 2 t\nq1 Q0 c 2 1 t\n"
    assert _pooled(tmp_path, from_zero, 1) == {"a": Score("t", 3.0, 1), "b": Score("t", 2.0, 2)}
    for rank in ("0", "x", "9" * 12):
        without = f"q1 Q0 a {rank} 1 t\nq1 Q0 b {rank} 3 t\nq1 Q0 c {rank} 3 t\n"
        assert _pooled(tmp_path, without, 2) == {"c": Score("t", 3.0, 1), "b": Score("t", 3.0, 2)}, "as trec_eval"


def _pooled(folder: Path, text: str, depth: int) -> dict[str, Score]:
    (folder / "any.run").write_text(text)
    return {each.doc_id: each.scores[0] for each in pool_runs([folder / "any.run"], depth).found["q1"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q1 Q0 a 1 2.5 t\nq1 Q0 b 2\n", r"bad\.run:2: expected `query Q0 document rank score tag`"),
        ("q1 Q0 a 1 2.5 t\nq1 Q0 a 2 1.5 t\n", r"bad\.run:2: a is in the ranking of q1 twice"),
        ("q1 Q0 a 1 best t\n", r"bad\.run:1: the score 'best' of a is no"),
        ("\n", r"bad\.run ranks nothing"),
    ],
)
def test_a_run_that_is_none_is_refused_with_its_line_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.run").write_text(text)
    with pytest.raises(MalformedInput, match=said):
        pool_runs([tmp_path / "bad.run"], 10)


async def test_a_pool_is_fed_whole_to_the_judge_and_feeding_it_again_adds_nothing(tmp_path: Path) -> None:
    broker, files = MemoryBroker(), two_runs(tmp_path)
    read = reader(files)
    report = await feed(broker, tmp_path / "j", read, ["q1\tfirst", "q2\tsecond", "q9\tunranked"])
    assert (report.accepted, report.known, read.pairs, read.without_text) == (2, 0, 5, 0)
    assert "no run ranks anything for the query q9" in report.rejected[3]
    again = await feed(broker, tmp_path / "j", reader(files), ["q1\tfirst", "q2\tsecond"])
    assert (again.accepted, again.known) == (0, 2)
    first, second = await sets(broker)
    assert [each.passage.passage_id for each in first.candidates] == ["a#0", "c#0", "b#0", "d#0"]
    assert all(each.sampled for each in (*first.candidates, *second.candidates))
    assert first.candidates[1].passage.text == "text of c"
    assert first.candidates[1].score("two") == Score("two", 9.0, 1)
    assert first.query.submitted_at and first.index_version.startswith("pool-2x2@")
    assert not await broker.fetch(Queue.QUERIES, 1, 0.01), "nothing is retrieved"


async def test_killed_before_its_journal_was_written_the_feed_sends_the_same_message_again(tmp_path: Path) -> None:
    broker, files = MemoryBroker(), two_runs(tmp_path)
    for journal in ("first", "second"):
        assert (await feed(broker, tmp_path / journal, reader(files), ["q1\tfirst"])).accepted == 1
    assert len(await sets(broker)) == 1, "the stream knows its id"


async def test_other_candidates_of_a_query_need_a_round_of_their_own_and_are_never_dropped_in_silence(
    tmp_path: Path,
) -> None:
    broker, files, path = MemoryBroker(), two_runs(tmp_path), tmp_path / "j"
    await feed(broker, path, reader(files, depth=1), ["q1\tfirst"])
    deeper = await feed(broker, path, reader(files), ["q1\tfirst"])
    assert "in round 0 with other candidates, which stay" in deeper.rejected[1] and "--round 1" in deeper.rejected[1]
    as_query = await feed(broker, path, "auto", ["q1\tfirst"])
    assert "--round 1" in as_query.rejected[1]
    assert (await feed(broker, path, reader(files), ["q1\tfirst"], query_round=1)).accepted == 1
    assert [each.query.round for each in await sets(broker)] == [0, 1]
    await feed(broker, path, "auto", ["q2\tsecond"])
    pooled = await feed(broker, path, reader(files), ["q2\tsecond"])
    assert "with the retriever's candidates" in pooled.rejected[1]


async def test_a_journal_from_before_pools_goes_on_and_keeps_whole_sets(tmp_path: Path) -> None:
    broker, path = MemoryBroker(), tmp_path / "j"
    await feed(broker, path, "auto", ["q2\tsecond"])
    with sqlite3.connect(path) as raw:
        raw.execute("ALTER TABLE accepted DROP COLUMN candidates")
    raw.close()
    assert (await feed(broker, path, "auto", ["q2\tsecond"])).known == 1
    await feed(broker, path, reader(two_runs(tmp_path)), ["q1\tfirst"])
    with Journal(path) as journal:
        fed, asked = journal.entry("q1"), journal.entry("q2")
    assert fed and asked and isinstance(asked.record, Query)
    assert isinstance(fed.record, CandidateSet) and fed.query == fed.record.query
    assert [fed.record] == await sets(broker), "reconcile feeds from it what was lost"


async def test_a_set_above_the_message_limit_is_rejected_with_what_to_do_and_loses_no_text(tmp_path: Path) -> None:
    broker = MemoryBroker(max_message_bytes=2_000)
    texts = {name: ("", " ".join(str(hash((name, i))) for i in range(150)), {}) for name in "abcd"}
    report = await feed(broker, tmp_path / "j", reader(two_runs(tmp_path), texts=texts), ["q1\tfirst", "q2\tsecond"])
    assert (report.accepted, list(report.rejected)) == (1, [1])
    assert "nats.max_message_bytes is 2000" in report.rejected[1] and "--depth" in report.rejected[1]


def test_a_document_without_a_text_stays_a_candidate_without_one(tmp_path: Path) -> None:
    read = reader(two_runs(tmp_path), texts={"a": TEXTS["a"], "c": ("only a title", " ", {})})
    found = {each.passage.doc_id: each.passage.text for each in read("q1\tfirst").candidates}
    assert found == {"a": "text of a", "c": "", "b": "", "d": ""}
    assert (read.pairs, read.without_text) == (4, 3)


def test_a_long_document_is_several_passages_that_share_words_and_at_most_so_many() -> None:
    text = " ".join(f"w{n}" for n in range(100))
    windows, whole = Windows(words=40, most=3).of(text)
    assert (windows[0].split(), windows[1].split()[0], windows[-1].split()[-1], whole) == (
        text.split()[:40], "w30", "w99", True,
    )  # fmt: skip
    assert Windows(words=40, most=2).of(text) == (windows[:2], False)
    assert Windows(words=100).of(f"\n {text} ") == ([text], True)
    assert Windows().of(" \n") == ([], True)
    assert Windows(words=4, most=2).of("潮汐因何发生") == (["潮汐因何", "何发生"], True)
    endless, whole = Windows(words=2, most=2).of("x" * 1000)
    assert (len(endless), max(map(len, endless)), whole) == (2, 32, False)


def line(*candidates: Any, **fields: Any) -> str:
    return json.dumps({"query_id": "q1", "query": "first", "candidates": candidates, **fields})


def test_candidates_bring_their_texts_scores_and_ranks() -> None:
    query, found = parse_candidates(
        line(
            {
                "doc_id": "a",
                "title": "A",
                "text": "tides",
                "scores": {"bm25": 2.0, "dense": {"score": 0.5, "rank": 7}},
            },
            {"id": "b", "contents": "waves", "scores": {"bm25": 3, "dense": {"rank": 2}}},
            {"doc_id": "c", "passage_id": "c-chunk4", "text": "moon", "scores": {"bm25": 2.0}},
            attributes={"source": "log"},
        ),
        "docs",
    )
    assert (query.query_id, query.text, query.attributes) == ("q1", "first", {"source": "log"})
    assert [(each.doc_id, each.passage_id, each.title, each.text) for each in found] == [
        ("a", "", "A", "tides"), ("b", "", "", "waves"), ("c", "c-chunk4", "", "moon"),
    ]  # fmt: skip
    assert [each.scores for each in found] == [
        (Score("bm25", 2.0, 2), Score("dense", 0.5, 7)),
        (Score("bm25", 3.0, 1), Score("dense", None, 2)),
        (Score("bm25", 2.0, 3),),
    ]


def test_without_scores_the_order_of_the_line_ranks_and_the_line_may_name_the_system() -> None:
    _, found = parse_candidates(
        line({"doc_id": "a"}, {"doc_id": "b", "system": "other"}, {"doc_id": 3}, system="mine"), "d"
    )
    assert [each.scores for each in found] == [
        (Score("mine", None, 1),), (Score("other", None, 1),), (Score("mine", None, 2),),
    ]  # fmt: skip
    _, (only,) = parse_candidates(line({"doc_id": "a", "score": -1, "rank": 4}), "d")
    assert only.scores == (Score("engine", -1.0, 4),)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("not JSON", "not JSON"),
        (json.dumps(["q1"]), "expected an object"),
        (json.dumps({"query_id": "q1", "query": "x"}), "give what was returned as `candidates`"),
        (line(), "no candidates"),
        (line("a"), "candidate 1: expected an object with doc_id"),
        (line({"doc_id": "a"}, {"text": "x"}), "candidate 2: no id"),
        (line({"doc_id": "a b"}), "candidate 1: the id 'a b' holds white space"),
        (line({"doc_id": "a"}, {"doc_id": "a"}), "a is among the candidates twice"),
        (line({"doc_id": "a", "score": "high"}), "candidate 1: the score of engine is no finite number"),
        (line({"doc_id": "a", "scores": {"bm25": float("nan")}}), "no finite number"),
        (line({"doc_id": "a", "scores": {"bm25": 10**400}}), "no finite number"),
        (line({"doc_id": "a", "scores": {"my engine": 1}}), "name it by one word"),
        (line({"doc_id": "a", "scores": []}), "scores must be an object"),
        (line({"doc_id": "a", "rank": 0}), "the rank of engine must be a whole number from 1"),
        (line({"doc_id": "a", "text": 7}), "candidate 1: title and text must be strings"),
        (line({"doc_id": "a"}, query=""), "the query has no text"),
    ],
)
def test_a_line_of_candidates_that_is_none_is_told_with_what_is_wrong(bad: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_candidates(bad, "docs")


def test_candidates_without_a_text_are_looked_up_and_passages_stay_as_they_are() -> None:
    texts = {name: ("B", "from the corpus", {"source": "corpus"}) for name in "bd"}
    read = Pools(of_candidates("docs"), texts, Windows(words=2), "candidates")
    found = read(
        line(
            {"doc_id": "a", "passage_id": "a#7", "text": "one two three four", "metadata": {"source": "line"}},
            {"doc_id": "b"},
            {"doc_id": "d", "metadata": {"source": "own"}},
            {"doc_id": "c", "metadata": {"source": "title alone"}},
        )
    )
    sources = [each.passage.metadata.get("source") for each in found.candidates]
    assert sources == ["line", "corpus", "corpus", "own", "own", "title alone"]
    assert [(each.passage.passage_id, each.passage.text) for each in found.candidates] == [
        ("a#7", "one two three four"), ("b#0", "from the"), ("b#1", "the corpus"), ("d#0", "from the"),
        ("d#1", "the corpus"), ("c#0", ""),
    ]  # fmt: skip
    with pytest.raises(InvalidQuery, match="b#1 is given as a passage"):
        read(line({"doc_id": "b"}, {"passage_id": "b#1", "doc_id": "b", "text": "x"}))


def test_mistakes_are_mined_of_the_system_that_ranks_the_most_of_a_pool(tmp_path: Path) -> None:
    assert current_model(reader(two_runs(tmp_path), 3)("q1\tfirst").candidates) == "one"
    assert current_model(reader(two_runs(tmp_path)[1:], 3)("q1\tfirst").candidates) == "two"
