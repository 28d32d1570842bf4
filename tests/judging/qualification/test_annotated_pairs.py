"""`qrelay judge slice`, on a real sink."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import InputError
from qrelay.formats.annotated_pairs import read_annotated_pairs
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.runtime.context import ServiceContext
from qrelay.services.sink.service import SinkServicer
from qrelay.services.sink.sink import Sink, load_sink
from qrelay.types import Candidate, CandidateSet, JudgedSet, Passage, Query
from qrelay.v1 import sink_pb2_grpc
from tests.judging.qualification.running import overlapping, run
from tests.judging.samples import make_judge
from tests.serving import announce, serving


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A real sink on a real gRPC server, announced in tmp_path, that holds 12 judged queries of 6 passages."""
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([each for each in asyncio.run(labelled()) if isinstance(each, JudgedSet)])
    ledger.close()
    settings = SinkSettings(data_dir=tmp_path)
    context: ServiceContext[SinkSettings, Sink] = ServiceContext("sink", settings, "test")
    core = context.core = load_sink(settings)
    with serving(
        "qrelay.v1.SinkService",
        lambda server: sink_pb2_grpc.add_SinkServiceServicer_to_server(SinkServicer(context), server),  # type: ignore[arg-type]
    ) as address:
        announce(tmp_path, "sink", address)
        yield core
    core.close()


async def labelled() -> list[Any]:
    def one(query: int) -> CandidateSet:
        pairs = [overlapping(query, n, None) for n in range(2, 8)]
        passages = [Passage(p.passage_id, p.passage_id, p.title, p.text) for p in pairs]
        return CandidateSet(
            Query(pairs[0].query_id, pairs[0].query, "docs"),
            tuple(Candidate(each, (), sampled=number > 0) for number, each in enumerate(passages)),
            "v1",
        )

    return list(await make_judge(strategy="binary").judge([one(query) for query in range(12)]))


def test_slice_writes_pairs_to_fill_in_and_hides_what_the_judge_said(sink: Sink, tmp_path: Path) -> None:
    out = tmp_path / "slice.tsv"
    options = ["--collection", "docs", "--data-dir", tmp_path, "--n", "20"]
    result = run(tmp_path, "slice", *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert "20 pairs" in result.output
    assert "of 60 judged" in result.output
    assert out.read_text().splitlines()[0] == "query_id\tpassage_id\tgrade\tquery\ttitle\ttext"
    pairs = read_annotated_pairs(out, ungraded=True)
    assert len(pairs) == 20
    assert read_annotated_pairs(out) == []
    known = {(p.query_id, p.passage_id): p for p in (overlapping(q, n, None) for q in range(12) for n in range(3, 8))}
    assert all(known[each.query_id, each.passage_id] == each for each in pairs)
    run(tmp_path, "slice", *options, "--out", tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == out.read_bytes()


def test_pairs_of_earlier_files_are_not_drawn_again(sink: Sink, tmp_path: Path) -> None:
    options = ["--collection", "docs", "--data-dir", tmp_path, "--n", "30"]
    names = [tmp_path / name for name in ("first.tsv", "second.tsv", "third.tsv")]
    run(tmp_path, "slice", *options, "--out", names[0])
    run(tmp_path, "slice", *options, "--out", names[1], "--without", names[0])
    first, second = ({(p.query_id, p.passage_id) for p in read_annotated_pairs(n, ungraded=True)} for n in names[:2])
    assert len(first) == len(second) == 30
    assert not first & second
    with pytest.raises(InputError, match="every judged pair of collection docs is in the files of --without"):
        run(tmp_path, "slice", *options, "--out", names[2], "--without", names[0], "--without", names[1])


def test_slice_never_overwrites_grades_and_says_when_nothing_fits(sink: Sink, tmp_path: Path) -> None:
    (tmp_path / "slice.tsv").write_text("grades")
    options = ["--collection", "docs", "--data-dir", tmp_path]
    with pytest.raises(InputError, match="exists, perhaps with grades in it"):
        run(tmp_path, "slice", *options, "--out", tmp_path / "slice.tsv")
    assert (tmp_path / "slice.tsv").read_text() == "grades"
    with pytest.raises(InputError, match="no graded judgment of collection docs fits --where 'grade=5'"):
        run(tmp_path, "slice", *options, "--out", tmp_path / "new.tsv", "--where", "grade=5")
