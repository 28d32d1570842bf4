"""Metadata in the ledger: kept with the candidates that were judged, so that judging again reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from qrelay.formats.annotated_pairs import read_annotated_pairs
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.people_pairs import write_annotated_pairs
from qrelay.types import JudgedSet
from tests.labels.builders import OTHER_JUDGE, graded, judgment, relabelled
from tests.labels.test_rounds import candidates, in_round

Metadata = Mapping[str, Mapping[str, str]]


def with_metadata(each: JudgedSet, metadata: Metadata) -> JudgedSet:
    """doc_id -> its metadata."""
    found = tuple(
        replace(c, passage=replace(c.passage, metadata=dict(metadata.get(c.passage.doc_id, {}))))
        for c in each.candidate_set.candidates
    )
    return replace(each, candidate_set=replace(each.candidate_set, candidates=found))


FIRST = with_metadata(in_round(0, {"a": graded(3), "b": graded(0), "c": None}), {"a": {"source": "NIH\0\u2028"}})
SECOND = with_metadata(
    in_round(1, {"c": graded(1), "a": graded(3), "b": None}), {"c": {"source": "new"}, "a": {"source": "second"}}
)
THIRD = in_round(2, {"b": graded(0), "a": None})


def metadata_in(ledger: Ledger) -> dict[str, Mapping[str, str]]:
    return {name: each.passage.metadata for name, each in candidates(ledger).items() if each.passage.metadata}


def test_a_committed_set_comes_back_with_its_metadata(ledger: Ledger) -> None:
    assert ledger.commit([FIRST]) == [CommitStatus.COMMITTED]
    assert metadata_in(ledger) == {"a": {"source": "NIH\0\u2028"}}
    with ledger.snapshot() as snapshot:
        (query,) = snapshot.labelled_queries("docs")
    assert query.candidates[0].passage.metadata == {"source": "NIH\0\u2028"}


def test_a_set_that_comes_again_with_other_metadata_is_a_duplicate(ledger: Ledger) -> None:
    ledger.commit([FIRST])
    assert ledger.commit([with_metadata(FIRST, {})]) == [CommitStatus.DUPLICATE]
    assert "a" in metadata_in(ledger)


def test_labels_of_other_metadata_join_by_judging_again(ledger: Ledger) -> None:
    ledger.commit([FIRST])
    again = relabelled(with_metadata(FIRST, {"a": {"source": "WHO"}}), judgment("a#0", graded(1), OTHER_JUDGE))
    assert ledger.rejudge([again]) == [1]
    assert metadata_in(ledger) == {"a": {"source": "NIH\0\u2028"}}


def test_pairs_that_people_graded_are_written_with_their_metadata(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit([with_metadata(FIRST, {"a": {"source": "NIH"}})])
    with sqlite_ledger.writing("test") as connection:
        said = [overrides.NewOverride("q1", name, 2, "0-3", "ana") for name in ("a#0", "b#0")]
        overrides.add(connection, "docs", said, sqlite_ledger.now_us())
    with sqlite_ledger.snapshot() as snapshot:
        write_annotated_pairs(snapshot, "docs", tmp_path / "pairs.tsv")
    pairs = read_annotated_pairs(tmp_path / "pairs.tsv")
    assert [pair.metadata for pair in pairs] == [{"source": "NIH"}, {}]


def test_the_latest_round_that_brought_metadata_gives_it_in_any_order(tmp_path: Path) -> None:
    for number, order in enumerate(permutations([FIRST, SECOND, THIRD])):
        ledger = Ledger.open(tmp_path / f"{number}.sqlite")
        ledger.commit(list(order))
        assert metadata_in(ledger) == {"a": {"source": "second"}, "c": {"source": "new"}}
        ledger.close()
