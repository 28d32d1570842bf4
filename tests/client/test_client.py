"""The client against an installation: `qrelay up`, a real nats-server and ledger, the shipped fakes for models."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_overloads

import pytest

from qrelay import AsyncClient, Client
from qrelay.client import frames, inputs
from qrelay.errors import (
    ConfigError,
    InputError,
    InvalidQuery,
    NotQualified,
    QrelayError,
    SetupError,
    UnknownCollection,
)
from qrelay.types import CandidateSet, Graded, Query
from tests.client.judging import Judging, judge
from tests.pipeline.harness import COLLECTION, DOUBLES, IMPATIENT, Installation
from tests.samples import candidate_set, judged_set

TEXTS = [f"how does thing {n} relate to the others?" for n in range(30)]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("client"), {**DOUBLES, **IMPATIENT}) as running:
        yield running


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with Client(installation.folder, collection=COLLECTION) as opened:
        yield opened


def test_a_query_becomes_candidates_a_ranking_and_judgments(client: Client) -> None:
    found = client.retrieve("how do I parse JSON?", max_candidates=20)
    assert (len(found.candidates), found.query.text, found.query.collection) == (
        20,
        "how do I parse JSON?",
        COLLECTION,
    )
    assert len(client.rerank(found, max_candidates=7).candidates) == 7
    ranked = client.rerank(found)
    assert any(each.sampled for each in ranked.candidates)
    judged = client.judge(ranked)
    assert len(judged.judgments) == sum(each.sampled for each in ranked.candidates)
    assert all(isinstance(each.outcome, Graded) for each in judged.judgments)


def test_calls_are_chained_and_keep_the_order(client: Client) -> None:
    judged = list(client.judge(client.rerank(client.retrieve(TEXTS))))
    assert [each.candidate_set.query.text for each in judged] == TEXTS


def test_the_callers_iterator_may_call_the_client_itself(client: Client) -> None:
    sets = (client.rerank(client.retrieve(text)) for text in TEXTS[:5])
    assert [each.candidate_set.query.text for each in client.judge(sets)] == TEXTS[:5]


def test_an_error_in_the_callers_iterator_comes_after_what_came_before_it(client: Client) -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS[:3]
        raise KeyError("gone")

    results = client.retrieve(texts())
    assert [next(results).query.text for _ in range(3)] == TEXTS[:3]
    with pytest.raises(KeyError, match="gone"):
        next(results)


def test_several_threads_share_a_client(client: Client) -> None:
    found: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        found[number] = [each.query.text for each in client.retrieve(TEXTS[number : number + 5])]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {number: TEXTS[number : number + 5] for number in range(8)}


def test_objects_are_read_as_query_lines_and_candidates_as_feed_reads_them(client: Client) -> None:
    found = client.retrieve({"query_id": "7", "text": "tides", "attributes": {"from": "log"}})
    assert found.query == Query("7", "tides", COLLECTION, attributes={"from": "log"})
    judged = client.judge(
        {"query_id": "7", "query": "tides", "candidates": [
            {"doc_id": "a", "text": "the moon and the tides", "score": 2.0},
            {"doc_id": "b", "passage_id": "b#4", "text": "of something else", "score": 1.0},
        ]}
    )  # fmt: skip
    assert [each.passage_id for each in judged.judgments] == ["a#0", "b#4"]


@pytest.mark.parametrize(
    ("item", "words"),
    [("", "no text"), ({"text": "x"}, "query_id"), (7, "a int is no query"), ("x", "of which collection")],
)
def test_what_is_no_query_is_refused_in_words_and_fails_no_other(
    installation: Installation, item: object, words: str
) -> None:
    with Client(installation.folder) as client:
        collection = "" if item == "x" else COLLECTION
        found = list(client.retrieve([item], collection=collection, on_error="return"))  # type: ignore[list-item]
        assert isinstance(found[0], InputError) and words in str(found[0])
        with pytest.raises(InputError, match=words):
            list(client.retrieve([item], collection=collection))  # type: ignore[list-item]


def test_errors_of_items_pass_through_later_calls(client: Client) -> None:
    queries = ["one", {"text": "without an id"}, "three"]
    reranked = client.rerank(client.retrieve(queries, on_error="return"), on_error="return")
    found = list(client.judge(reranked, on_error="return"))
    assert [isinstance(each, QrelayError) for each in found] == [False, True, False]


def test_a_judged_set_is_ingested_once_and_its_labels_are_read_back(client: Client) -> None:
    judged = list(client.judge(client.rerank(client.retrieve([f"ingest {n}" for n in range(5)]))))
    assert list(client.ingest(judged)) == [1] * 5
    assert client.ingest(judged[0]) == 0
    assert client.ingest(judged[0], rejudgment=True) == 0
    wanted = judged[2].candidate_set.query
    (label,) = client.labels(f"query_id={wanted.query_id}")
    assert label.candidate_set.query.text == wanted.text
    assert {each.judgment_key for each in label.judgments} == {each.judgment_key for each in judged[2].judgments}


def test_what_is_fed_is_waited_for_labelled_and_exported(client: Client, tmp_path: Path) -> None:
    queries = [{"query_id": f"f{n}", "text": text} for n, text in enumerate(TEXTS)]
    report = client.feed(queries)
    assert (report.accepted, report.rejected) == (30, {})
    ended = client.wait(report)
    assert (ended.committed, ended.dead) == (30, ())
    assert client.feed(iter(queries)).known == 30
    assert client.feed(TEXTS[0]).accepted == 1
    assert client.wait([Query("f3", "", COLLECTION), "f4"]).committed == 2

    labels = [each for each in client.labels() if each.candidate_set.query.query_id.startswith("f")]
    assert len(labels) == 30
    exported = client.export("qrels", tmp_path / "mine.qrels")
    text = (tmp_path / "mine.qrels").read_bytes()
    assert (exported.rows, exported.sha256) == (len(text.splitlines()), hashlib.sha256(text).hexdigest())
    assert json.loads((tmp_path / "mine.qrels.manifest.json").read_text()) == exported.manifest
    assert b"".join(client.export("qrels", where="query_id=f3")).count(b"\n") == sum(
        isinstance(each.outcome, Graded) for each in labels[sorted(f"f{n}" for n in range(30)).index("f3")].judgments
    )


def test_candidates_are_fed_to_the_judge(client: Client) -> None:
    found = client.rerank(client.retrieve("candidates of one's own"))
    report = client.feed(
        [found, {"query_id": "given", "text": "tides", "candidates": [{"doc_id": "a", "text": "b"}]}]
    )
    assert (report.accepted, client.wait(report).committed) == (2, 2)


def test_what_feed_refuses_is_in_its_report(client: Client) -> None:
    report = client.feed(["a question", "", Query("elsewhere", "x", "other"), {"query_id": "a b", "text": "x"}])
    assert (report.accepted, [*report.rejected]) == (1, [2, 3, 4])
    assert "no text" in report.rejected[2]
    assert "feed each by itself" in report.rejected[3]


def test_training_data_of_a_judge_that_nobody_measured_is_refused_by_its_name(client: Client, tmp_path: Path) -> None:
    documents = [
        "tides of the moon",
        *(f"{word} of something else" for word in ("ships", "birds", "trains", "bread")),
    ]
    found = [{"doc_id": f"d{n}", "text": text, "score": 9.0 - n} for n, text in enumerate(documents)]
    client.wait(client.feed({"query_id": "tides", "text": "tides of the moon", "candidates": found}))
    with pytest.raises(NotQualified, match="unmeasured"):
        client.export("triples", tmp_path / "t.jsonl")
    assert not list(tmp_path.iterdir())
    assert client.export("triples", tmp_path / "t.jsonl", unmeasured=True).queries > 0
    with pytest.raises(InputError, match=r"no export 'qrel'.*Did you mean 'qrels'"):
        client.export("qrel")  # type: ignore[call-overload]


def test_a_collection_that_the_ledger_does_not_know_is_named(client: Client) -> None:
    with pytest.raises(UnknownCollection, match="nowhere"):
        list(client.labels(collection="nowhere"))


def test_a_condition_that_does_not_parse_is_refused(client: Client) -> None:
    with pytest.raises(InputError, match="grad"):
        list(client.labels("grad=2"))


def test_records_become_data_frames_and_datasets(client: Client) -> None:
    pytest.importorskip("pandas")
    judged = list(client.judge(client.rerank(client.retrieve(TEXTS[:4]))))
    frame = client.judge(each.candidate_set for each in judged).to_pandas()
    assert len(frame) == sum(len(each.judgments) for each in judged)
    assert {"query_id", "query", "passage_id", "text", "bm25_rank", "cross_encoder_score", "grade", "p_relevant",
            "missing", "judge"} <= {*frame.columns}  # fmt: skip
    assert [*frame.grade] == [each.outcome.grade for one in judged for each in one.judgments]  # type: ignore[union-attr]
    dataset = client.retrieve(TEXTS[:3], max_candidates=10).to_dataset()
    assert dataset.num_rows == 30
    assert dataset[0]["bm25_rank"] >= 1


def test_without_the_library_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SetupError, match=r"to_pandas.*pip install pandas"):
        frames.pandas_frame([])


def test_rows_of_what_is_missing_and_of_errors_have_the_same_columns() -> None:
    columns = frames.columns([judged_set(), InvalidQuery("no text")])
    assert {len(each) for each in columns.values()} == {3}
    assert columns["grade"] == [2, None, None]
    assert columns["missing"] == ["", "timeout", None]
    assert columns["error"] == [None, None, "no text"]


def test_records_and_clients_print_in_one_short_line(client: Client) -> None:
    shown = [judged_set(), candidate_set(), candidate_set().candidates[0], client, client.retrieve(["x"]),
             *judged_set().judgments]  # fmt: skip
    assert all("\n" not in repr(each) and len(repr(each)) < 160 for each in shown)
    assert repr(judged_set()) == "JudgedSet('q0', 'how to do thing 0', 1 of grade 2, 1 missing)"


def test_html_of_records_escapes_what_the_corpus_holds() -> None:
    hostile = candidate_set()
    hostile = CandidateSet(Query("q", "<script>alert(1)</script>", "docs"), hostile.candidates, "v1")
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()


async def test_the_asynchronous_client_does_the_same(installation: Installation, tmp_path: Path) -> None:
    async with AsyncClient(installation.folder, collection=COLLECTION) as client:
        texts = [f"asynchronous {n}" for n in range(10)]
        judged = [each async for each in client.judge(client.rerank(client.retrieve(texts)))]
        assert [each.candidate_set.query.text for each in judged] == texts
        report = await client.feed(texts)
        assert (await client.wait(report)).committed == 10
        assert len([each async for each in client.labels()]) >= 10
        assert (await client.export("qrels", tmp_path / "a.qrels")).rows > 0
        assert len((await client.judge(judged[0].candidate_set)).judgments) == len(judged[0].judgments)


def test_results_that_nobody_reads_to_the_end_end_their_call() -> None:
    servicer = Judging()
    with judge(servicer) as address, Client(judge=address) as client:
        results = client.judge([candidate_set(n) for n in range(1000)])
        next(results)
        del results
        gc.collect()
        while not servicer.ended:
            threading.Event().wait(0.01)
    assert len(servicer.items) < 1000


def test_closing_a_client_ends_what_waits_for_it_in_another_thread() -> None:
    servicer, ended = Judging(held=True), threading.Event()
    with judge(servicer) as address:
        client = Client(judge=address)

        def ask() -> None:
            try:
                list(client.judge([candidate_set(n) for n in range(5)]))
            except BaseException:
                ended.set()

        thread = threading.Thread(target=ask)
        thread.start()
        while not servicer.asked:
            threading.Event().wait(0.01)
        client.close()
        client.close()
        thread.join()
        servicer.held = False
    assert ended.is_set()


def test_results_that_are_read_after_the_client_was_closed_are_refused_in_words() -> None:
    with judge(Judging()) as address, Client(judge=address) as client:
        results = client.judge([candidate_set(n) for n in range(3)])
    with pytest.raises(InputError, match="is closed"):
        next(results)
    with pytest.raises(InputError, match="is closed"):
        client.judge(candidate_set(1))


def test_a_client_with_an_address_needs_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qrelay.yaml").write_text("of another program: [")
    monkeypatch.chdir(tmp_path)
    with judge(Judging()) as address, Client(judge=address, collection="docs") as client:
        assert len(client.judge(candidate_set()).judgments) == 5
        assert repr(client) == f"Client(judge='{address}', collection='docs')"
        with pytest.raises(ConfigError, match=r"qrelay\.yaml"):
            client.retrieve("what runs from the data folder")
    with pytest.raises(ConfigError, match=r"qrelay\.yaml"):
        Client()


def _calls(client: type) -> dict[str, Any]:
    """Its public methods."""
    return {name: each for name, each in vars(client).items() if not name.startswith("_") or name == "__init__"}


def _parameters(call: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(getattr(call, "__func__", call)).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


def test_both_clients_have_the_same_calls_and_say_the_same_of_them() -> None:
    blocking, asynchronous = _calls(Client), _calls(AsyncClient)
    assert blocking.keys() - {"close"} == asynchronous.keys() - {"aclose"}
    for name in blocking.keys() & asynchronous.keys():
        one, other = blocking[name], asynchronous[name]
        assert one.__doc__ == other.__doc__, name
        if not isinstance(one, property):
            assert _parameters(one) == _parameters(other), name
            assert [*map(_parameters, get_overloads(one))] == [*map(_parameters, get_overloads(other))], name


def test_what_is_said_of_a_call_names_its_parameters_and_errors() -> None:
    for name, call in _calls(Client).items():
        if name in ("close", "data_dir"):
            continue
        said, calls = inspect.getdoc(call) or "", get_overloads(call) or [call]
        named = {each for one in calls for each, kind, _ in _parameters(one) if each not in ("self", "cls")}
        # of `local` those of every client are said there
        missing = {each for each in named if each not in said} - {"timeout_s", "attempts", "data_dir"}
        assert not missing, (name, missing)
        assert "Raises:" in said, name


def test_a_data_frame_is_read_by_its_rows() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"query_id": ["1", "2"], "text": ["tides", "bread"]})
    assert [inputs.query(row, "docs").text for row in inputs.rows(frame)] == ["tides", "bread"]


def test_a_client_from_a_thread_with_a_running_loop_works() -> None:
    """As in a notebook."""
    import asyncio

    async def cell() -> int:
        with judge(Judging()) as address, Client(judge=address) as client:
            return len(client.judge(candidate_set()).judgments)

    assert asyncio.run(cell()) == 5


def test_importing_the_client_loads_no_model_library() -> None:
    code = (
        "import sys, qrelay; before = {m.split('.')[0] for m in sys.modules};"
        "from qrelay import Client, AsyncClient; after = {m.split('.')[0] for m in sys.modules};"
        "print('grpc' in before, 'pydantic' in before,"
        " sorted(after & {'torch', 'numpy', 'pandas', 'datasets', 'pyarrow', 'sqlalchemy', 'transformers', 'click'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False []"
