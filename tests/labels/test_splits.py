"""Splits: by hash, the same whatever the order, and nothing that queries share is on two sides."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.errors import InputError
from qrelay.labels.exports.spill import Spill
from qrelay.labels.exports.splits import Groups, Leaks, Splits, key, parse_splits
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import JudgedSet
from tests.labels.builders import graded, judged_set
from tests.labels.exporting import export_file

SHARES = "train=0.6,dev=0.2,test=0.2"


def shared_set(number: int, rng: random.Random) -> JudgedSet:
    """A query whose relevant document others may have as well, and whose text others may ask in other letters."""
    document = f"d{rng.randrange(30)}-"
    text = rng.choice((f"Question {number}?", f"question {number - number % 2}", f"QUESTION, {number - number % 2}!"))
    record = judged_set(f"q{number:03d}", text, [graded(3), graded(0)], prefix=document)
    query = dataclasses.replace(record.candidate_set.query, attributes={"topic": f"t{number % 11}"})
    return dataclasses.replace(record, candidate_set=dataclasses.replace(record.candidate_set, query=query))


def sets(count: int = 80) -> list[JudgedSet]:
    rng = random.Random(7)
    return [shared_set(number, rng) for number in range(count)]


def sides(folder: Path) -> dict[str, str]:
    """query_id -> its split, from the files."""
    found: dict[str, str] = {}
    for path in folder.glob("*.qrels"):
        for line in path.read_text().splitlines():
            assert found.setdefault(line.split(" ")[0], path.stem) == path.stem
    return found


def split(ledger: Ledger, folder: Path, group_by: str, kind: str = "qrels", **choices: Any) -> dict[str, Any]:
    return export_file(
        ledger, "docs", kind, folder, splits=parse_splits(SHARES, group_by), unmeasured=True, **choices
    )


def words(record: JudgedSet) -> str:
    return record.candidate_set.query.text.lower().strip("?!").replace(",", "")


def document(record: JudgedSet) -> str:
    return record.candidate_set.candidates[0].passage.doc_id


def topic(record: JudgedSet) -> str:
    return record.candidate_set.query.attributes["topic"]


@pytest.mark.parametrize(
    ("group_by", "shared"), [("query", [words]), ("doc", [words, document]), ("attribute:topic", [words, topic])]
)
def test_nothing_that_queries_share_is_on_two_sides(
    ledger: Ledger, tmp_path: Path, group_by: str, shared: list[Any]
) -> None:
    ledger.commit(sets())
    manifest = split(ledger, tmp_path / "out", group_by)
    found = sides(tmp_path / "out")
    assert len(found) == 80
    for of in shared:
        together = defaultdict(set)
        for record in sets():
            together[of(record)].add(found[record.candidate_set.query.query_id])
        assert all(len(names) == 1 for names in together.values())
        assert len(together) < 80
    assert manifest["shared_by_two_splits"] == 0
    assert {name: each["queries"] for name, each in manifest["splits"].items()} == {
        name: list(found.values()).count(name) for name in ("train", "dev", "test")
    }


def test_without_grouping_by_document_the_same_data_would_leak(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit(sets())
    split(sqlite_ledger, tmp_path / "out", "query")
    found = sides(tmp_path / "out")
    together = defaultdict(set)
    for record in sets():
        together[document(record)].add(found[record.candidate_set.query.query_id])
    assert any(len(names) > 1 for names in together.values())


def test_every_format_splits_alike(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    import orjson

    sqlite_ledger.commit(sets())
    split(sqlite_ledger, tmp_path / "qrels", "doc")
    split(sqlite_ledger, tmp_path / "triples", "doc", "triples")
    found = sides(tmp_path / "qrels")
    for path in (tmp_path / "triples").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            assert found[orjson.loads(line)["query_id"]] == path.stem


def test_a_querys_side_does_not_move_when_others_come(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit(sets()[:40])
    split(sqlite_ledger, tmp_path / "few", "query")
    sqlite_ledger.commit(sets())
    split(sqlite_ledger, tmp_path / "all", "query")
    assert sides(tmp_path / "few").items() <= sides(tmp_path / "all").items()


@given(st.lists(st.sets(st.integers(0, 9), max_size=3), min_size=1, max_size=20), st.randoms())
def test_groups_do_not_depend_on_the_order_of_queries(links: list[set[int]], rng: random.Random) -> None:
    def names(order: list[int]) -> dict[int, int]:
        with Spill() as spill:
            groups = Groups(spill)
            for number in order:
                groups.add(1000 + number, [key("doc", str(link)) for link in sorted(links[number])])
            return {number: groups.name(place) for place, number in enumerate(order)}

    order = list(range(len(links)))
    straight = names(order)
    rng.shuffle(order)
    assert names(order) == straight
    for one, other in ((a, b) for a in straight for b in straight if links[a] & links[b]):
        assert straight[one] == straight[other]


def test_a_leak_is_found_where_there_is_one() -> None:
    with Spill() as spill:
        leaks = Leaks(spill)
        for side, value in ((0, "a"), (1, "b"), (0, "a"), (1, "a")):
            leaks.add(side, [key("doc", value)])
        assert leaks.found == 1


def test_the_shares_are_those_of_the_groups() -> None:
    splits = parse_splits("train=0.8,test=0.2")
    assert 0.77 < sum(splits.of_group(number) == 0 for number in range(4000)) / 4000 < 0.83
    assert Splits((("all", 1.0),)).of_group(5) == 0


@pytest.mark.parametrize(
    ("text", "group_by", "message"),
    [
        ("train=0.8,dev=0.1", "doc", "sum to 0.9"),
        ("train=0.5,train=0.5", "doc", "new name"),
        ("train=x", "doc", "NAME=SHARE"),
        ("../up=1", "doc", "NAME=SHARE"),
        ("train=1", "passage", "attribute:NAME"),
        ("train=1", "attribute:", "attribute:NAME"),
    ],
)
def test_splits_that_cannot_be_are_refused_in_words(text: str, group_by: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_splits(text, group_by)


def test_an_increment_cannot_be_split_by_groups_that_may_grow(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit(sets(3))
    with pytest.raises(InputError, match="--group-by query"):
        split(sqlite_ledger, tmp_path / "out", "doc", since=0)
    assert split(sqlite_ledger, tmp_path / "out", "query", since=0)["queries"] == 3
