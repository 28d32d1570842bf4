"""Files of people and other tools: query lines, corpora, qrels, runs, tables of pairs, labels, training data."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, get_args

import zstandard

from qrelay import wire
from qrelay.cli.index.update import document_ids
from qrelay.cli.judge.group import _read_passages
from qrelay.cli.judge.preview import _queries as previewed_queries
from qrelay.errors import QrelayError
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.feed.pool import Pools, of_candidates, of_runs, pool_runs, textless
from qrelay.feed.source import _rotated_lines, open_lines, open_records
from qrelay.feed.windows import Windows
from qrelay.forgetting.choosing import lines_of
from qrelay.forgetting.finder import Finder
from qrelay.forgetting.folder import forget_files
from qrelay.formats.annotated_pairs import (
    GradedPair,
    corpus_texts,
    read_annotated_pairs,
    read_beir,
    relevant_from,
    write_annotated_pairs,
)
from qrelay.formats.beir import read_answers, read_collection, read_qrels
from qrelay.formats.datasets import QUERIES, QUERY_COLUMNS, QUESTIONS, Columns
from qrelay.formats.graded_sample import read_graded_sample
from qrelay.formats.lines import all_lines
from qrelay.formats.queries import Format, parse_line, query_of, read_queries
from qrelay.formats.records import asked_answers, passage_fields, read_records
from qrelay.formats.runs import read_run, run_lines
from qrelay.index import spool
from qrelay.index.corpus import read_corpus
from qrelay.index.pydocs import read_python_docs
from qrelay.judging.batches.offline import read_candidate_pairs
from qrelay.judging.check.known import read_known
from qrelay.judging.nuggets.create import read_list
from qrelay.judging.nuggets.records import (
    Assigned,
    Assignment,
    Nugget,
    NuggetList,
    assignment_line,
    list_line,
    read_assignments,
    read_lists,
)
from qrelay.judging.nuggets.records import read_answers as read_systems_answers
from qrelay.judging.nuggets.scores import scored
from qrelay.judging.preview import read_pairs as previewed_pairs
from qrelay.judging.querygen.passages import read_passages
from qrelay.judging.strategies.contrastive import alternatives
from qrelay.labels.audit.evaluation import EvaluationSet
from qrelay.labels.audit.sample import read_pairs as read_sample
from qrelay.labels.exports.publishing import parse_manifest
from qrelay.labels.importing import parse, parse_scale_map
from qrelay.labels.review import _key_of
from qrelay.labels.where import parse_where
from qrelay.runtime.memory import MemoryBroker
from qrelay.training.data import Reading, load_examples
from qrelay.training.evaluation.freezing import Labels, freeze
from qrelay.training.evaluation.frozen import FrozenSet
from qrelay.training.evaluation.questions import read_questions
from qrelay.training.job.data import divide
from qrelay.training.job.dev import dev_set
from qrelay.types import Query
from tests.fuzz.parser import Parser, beside, constant, each, file, written, zipped
from tests.labels import builders
from tests.labels.exporting import export_file
from tests.training.sets import write_set

_QUERIES: Final = constant(
    '{"query_id": "q1", "text": "how to copy", "attributes": {"a": "1"}, "reference_answers": ["x"]}\n'
    '{"_id": 7, "query": "b"}\n',
    "q1\thow to copy a tree\nq2\tlocks\n",
    "how to copy a tree\nwhat is a lock?\n",
)
_CORPUS: Final = constant(
    '{"_id": "d1", "title": "t", "text": "one two", "metadata": {"a": [1], "b": "c"}}\n'
    '{"id": 2, "contents": "three"}\n'
    '{"doc_id": "d3", "body": "x", "title": ""}\n'
    '{"docid": "d4", "passage": "y"}\n{"passage_id": "d1#0", "doc_id": "d1", "text": "z"}\n'
)
_QRELS: Final = constant(
    "q1 0 d1 1\nq1 0 d2 0\nq2 0 d3#1 2\n",
    "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n",
    "q1\td1\t3\nq2\td2\t0\n",
)
_RUN: Final = constant("q1 Q0 d1 1 9.5 bm25\nq1 Q0 d2 2 -1e-3 bm25\n")
_CANDIDATES: Final = constant(
    '{"query_id": "q1", "query": "how", "candidates": [{"doc_id": "d1", "text": "x", "scores": {"bm25": 2.5, "dense":'
    ' {"score": 0.5, "rank": 3}}}, {"id": 2, "score": 1, "metadata": {"a": 1}}, {"passage_id": "d3#1", "title": "t",'
    ' "rank": 2}]}\n'
)
_ANSWERS: Final = constant('{"query_id": "q1", "answers": ["a", "b"]}\n{"_id": "q2", "answer": "[\'c\', \'d\']"}\n')
_PAIRS: Final = (
    GradedPair("q0", "d1", 0, "how", "t", "x"),
    GradedPair("q1", "d1", 2, "how", "t", "x", ("a",)),
    GradedPair("q1", "d2", None, "how", "", "y", metadata={"source": "a"}),
)


def _lines_of(follow: bool) -> Callable[[Path], Any]:
    """As `qrelay feed` reads: every line is a query or refused, and the others go on."""

    async def read(lines: AsyncIterator[bytes | None]) -> None:
        async for line in lines:
            if line is None:
                if follow:
                    return  # what is there was read
                continue
            try:
                parse_line(line, "docs")
            except QrelayError as error:
                str(error).encode()

    return lambda path: asyncio.run(read(open_lines(path, follow=follow)))


def _rotated(path: Path) -> Iterator[bytes]:
    """The lines of `path` as a followed log that was rotated to this name meanwhile has them."""
    log = path.with_suffix("")
    log.write_bytes(b"begun\n")
    with log.open("rb") as opened:
        yield from _rotated_lines(log, opened, 0)


async def _fed(path: Path) -> None:
    with Journal(path.with_suffix(".sqlite")) as journal:
        feeder = Feeder(MemoryBroker(), journal, collection="docs")
        for why in (await feeder.feed(open_lines(path, follow=False))).rejected.values():
            why.encode()


def _pooled(path: Path) -> None:
    pools = Pools(of_runs(pool_runs([path], 10), "docs", "auto"), {}, Windows(), "pool")
    wire.encode(pools(b"q1\thow"))


def _candidates_to_judge(path: Path) -> None:
    read_candidate_pairs(path)


def _candidates(path: Path) -> None:
    pools = Pools(of_candidates("docs"), dict.fromkeys(textless(path, "docs"), ("t", "x", {})), Windows(2, 2), "fed")
    for line in all_lines(path):
        wire.encode(pools(line))


def _line(data: bytes, _: Path) -> None:
    errors = []
    for kind in get_args(Format):
        try:
            parse_line(data, "docs", kind)
        except QrelayError as error:
            errors.append(error)
    if errors:
        raise errors[-1]


def _pairs(folder: Path) -> None:
    write_annotated_pairs(folder / "pairs.tsv", _PAIRS, answers=True, metadata=True)


def _read_pairs(path: Path) -> None:
    relevant_from(each.grade for each in read_annotated_pairs(path) if each.grade is not None)


def _nuggets(_: Path) -> Sequence[bytes]:
    whole = NuggetList("q1", "how?", (Nugget("sorted sorts", "vital", 0.9), Nugget("b")), {"model": "m"})
    return [list_line(whole).encode()]


def _assignments(_: Path) -> Sequence[bytes]:
    held = (Assigned(Nugget("sorted sorts", "vital", 0.9), "support", (0.0, 0.1, 0.9)), Assigned(Nugget("b")))
    return [assignment_line(Assignment("q1", "", "p1", held, {"model": "m"}, "n")).encode()]


def _nugget_lists(path: Path) -> None:
    for found in read_lists(path).values():
        list_line(found).encode()


def _nugget_scores(path: Path) -> None:
    for found in read_assignments(path):
        scored(found)
        assignment_line(found).encode()


def _set(folder: Path) -> None:
    write_set(folder / "set", {"d1": "one", "d2": "two"}, {"q1": "how"}, {"q1": "d1"})


def _forgotten(folder: Path, text: str) -> None:
    forget_files(folder, Finder([text], "docs", ["q1"]), set(), dry_run=False)


def _loosely(data: bytes, _: Path) -> None:
    Finder(["how"]).loosely(data)


def _parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(
        pyarrow.table({"_id": ["d1", "d2"], "title": ["t", ""], "text": ["a", "b"]}), folder / "c.parquet"
    )


def _asked(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    rows = {"qid": ["q1", "q2"], "question": ["how", "why"], "attributes": [{"a": "1"}, {"a": None}]}
    parquet.write_table(pyarrow.table({**rows, "reference_answers": [["x"], []]}), folder / "q.parquet")


def _dataset(path: Path) -> None:
    """As `qrelay feed` reads it: every row is a query or refused."""

    async def read() -> None:
        for columns in (QUERY_COLUMNS, Columns.of(["query_id=qid", "text=question"], QUERIES), Columns(QUESTIONS)):
            async for row in open_records(path, columns, follow=False):
                if row is not None:
                    with suppress(QrelayError):
                        query_of(row, "docs", columns)

    asyncio.run(read())
    deque(read_queries(path), 0)


def _named(text: str) -> None:
    columns = Columns.of([text], QUERIES)
    query_of('{"qid": 1, "question": "x", "query_id": "q", "text": "t"}', "docs", columns)


def _saved(folder: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"_id": ["d1"], "title": ["t"], "text": ["a"]}).save_to_disk(str(folder / "saved"))


def _refused(where: str, why: str) -> None:
    (where + why).encode()


def _corpus(path: Path) -> None:
    for document in read_corpus(str(path), _refused):
        document.text.encode()


def _fill(path: Path) -> None:
    """The first pass of a build, and its file read again."""
    folder = path.parent
    spool.fill(folder, read_corpus(str(path), _refused), _refused, lambda _: None)
    list(spool.read(folder))
    spool.positions_by_id(folder)


def _python_docs(path: Path) -> None:
    list(read_python_docs(f"@{path}"))


def _export(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from qrelay.labels.ledger.ledger import Ledger

        ledger = Ledger.open(folder / "ledger.sqlite")
        sets = [
            builders.judged_set("q1"),
            builders.judged_set("q2", outcomes=[builders.graded(0), builders.graded(2)]),
        ]
        ledger.commit(sets)
        export_file(ledger, "docs", kind, folder / "data.jsonl", unmeasured=True, unqualified=True)
        ledger.close()

    return write


def _examples(data: bytes, folder: Path) -> None:
    path = folder / "data.jsonl"
    path.write_bytes(data)
    each(
        lambda: load_examples([path], Reading()),
        lambda: load_examples([path], Reading(target="grade", positives="target", need_positive=False, others=True)),
        lambda: load_examples([path], Reading(prior="cross_encoder")),
    )


def _divided(data: bytes, folder: Path) -> None:
    (folder / "data.jsonl").write_bytes(data)
    divide(folder / "data.jsonl", folder / "out", 0.3, ())
    dev_set(folder / "out" / "dev.jsonl")


def _labels(path: Path) -> None:
    parse(path, "0-3", "ana")
    parse(path, "1-4", "ana", scale_map={1: 1, 2: 2}, from_zero=True)


def _whole_collection(folder: Path) -> Any:
    (folder / "queries.jsonl").write_bytes((folder / "corpus.jsonl").read_bytes())
    (folder / "qrels.tsv").write_bytes(b"d1 0 d1 1\n2 0 2 1\n")
    return read_collection(folder, folder / "queries.jsonl", folder / "qrels.tsv").hash


def _beir_pairs(folder: Path) -> Any:
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "one"}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "how"}) + "\n")
    (folder / "qrels.tsv").write_text("q1 0 d1 1\n")
    answers = folder / "answers.jsonl"
    corpus_texts(folder)
    return read_beir(folder, folder / "queries.jsonl", folder / "qrels.tsv", answers=answers)


def _frozen(folder: Path) -> None:
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "how"}\n')
    (folder / "qrels.tsv").write_text("q1 0 d1 1\n")
    files = (folder, folder / "queries.jsonl", folder / "qrels.tsv")
    freeze(folder / "set", files, name="s", labels=Labels("gold", (), 1))


def _forbidden(folder: Path) -> None:
    """An evaluation set that training data must not hold."""
    qrels = folder / "qrels.tsv"
    found = EvaluationSet(folder / "queries.jsonl", folder / "queries.jsonl", qrels if qrels.exists() else None)
    each(found.read_queries, found.read_passages)


def _questions(path: Path) -> None:
    (path.parent / "corpus.jsonl").write_text('{"_id": "d1", "text": "x"}\n')
    read_questions(path.parent, path)


def _alternatives(text: str) -> None:
    alternatives(Query("q1", "how?", "docs", attributes={"alternatives": text}))


def _text(read: Callable[[str], Any]) -> Callable[[bytes, Path], Any]:
    return lambda data, _: read(data.decode("utf8", "surrogateescape"))


_TOKEN: Final = base64.urlsafe_b64encode(json.dumps(["uncertainty", "docs", 0.5, "q1", "d1#0"]).encode())

PARSERS: Final = (
    Parser("feed", "jsonl", _QUERIES, file("queries.txt", lambda path: asyncio.run(_fed(path))), cost=3),
    Parser(
        "queries of a preview", "jsonl", _QUERIES, file("queries.txt", lambda path: previewed_queries(path, "docs"))
    ),
    Parser(
        "pairs of a preview",
        "jsonl",
        constant('{"query": "q", "text": "t", "title": "", "reference_answers": ["a"], "metadata": {"b": 2}}\n'),
        file("p.jsonl", previewed_pairs),
    ),
    Parser(
        "passages of a trial",
        "jsonl",
        constant('{"title": "t", "text": "x"}\na passage\n'),
        file("p.txt", _read_passages),
    ),
    Parser("ids of documents to remove", "lines", constant("d1\nd2\n"), file("gone.txt", document_ids)),
    Parser("passages to ask about", "jsonl", _CORPUS, file("corpus.jsonl", read_passages)),
    Parser("alternatives of a query", "json", constant('["how else?", "why?"]'), _text(_alternatives)),
    Parser(
        "known answers",
        "lines",
        lambda _: [*_QRELS(_), b"query_id\tpassage_id\nq1\td1\n", b"q1\td1\n"],
        file("known.tsv", read_known),
    ),
    Parser(
        "sample of an audit", "lines", constant("query_id\tpassage_id\tgrade\nq1\td1\t\n"), file("s.tsv", read_sample)
    ),
    Parser(
        "evaluation set",
        "jsonl",
        constant('{"_id": "d1", "title": "t", "text": "one"}\n'),
        beside(lambda _: None, "queries.jsonl", _forbidden),
    ),
    Parser(
        "qrels of an evaluation set",
        "lines",
        _QRELS,
        beside(
            lambda folder: (folder / "queries.jsonl").write_text('{"_id": "d1", "text": "x"}\n'),
            "qrels.tsv",
            _forbidden,
        ),
    ),
    Parser(
        "collection to freeze",
        "jsonl",
        constant('{"_id": "d1", "title": "t", "text": "one"}\n{"_id": "d2", "text": "two"}\n'),
        beside(lambda _: None, "corpus.jsonl", _frozen),
    ),
    Parser(
        "questions with answers",
        "jsonl",
        constant('{"_id": "q1", "text": "a", "metadata": {"answer": "x"}}\n'),
        file("queries.jsonl", _questions),
    ),
    Parser(
        "page token of a review",
        "bytes",
        constant(_TOKEN),
        _text(lambda text: _key_of(text, "uncertainty", "docs", 5)),
    ),
    Parser("query line", "jsonl", lambda _: [line for seed in _QUERIES(_) for line in seed.splitlines()], _line),
    Parser("query file", "jsonl", _QUERIES, file("queries.jsonl", read_queries)),
    Parser("query file by gzip", "bytes", zipped(_QUERIES), file("queries.jsonl.gz", read_queries)),
    Parser("fed file", "jsonl", _QUERIES, file("queries.txt", _lines_of(False))),
    Parser("fed table", "lines", _QUERIES, file("queries.csv", _lines_of(False))),
    Parser("followed file", "jsonl", _QUERIES, file("log.txt", _lines_of(True))),
    Parser("rotated file", "bytes", zipped(_QUERIES), file("log.txt.1", _rotated)),
    Parser("corpus", "jsonl", _CORPUS, file("corpus.jsonl", _corpus)),
    Parser("corpus by gzip", "bytes", zipped(_CORPUS), file("corpus.jsonl.gz", _corpus)),
    Parser("queries in Parquet", "bytes", written("q.parquet", _asked), file("queries.parquet", _dataset), cost=3),
    Parser("columns by name", "lines", constant("query_id=qid", "text=question", "text"), _text(_named)),
    Parser("corpus in Parquet", "bytes", written("c.parquet", _parquet), file("corpus.parquet", _corpus)),
    Parser(
        "corpus saved by datasets",
        "json",
        written("saved/state.json", _saved),
        beside(_saved, "saved/state.json", lambda folder: _corpus(folder / "saved")),
        cost=10,
    ),
    Parser("corpus, first pass of a build", "jsonl", _CORPUS, file("corpus.jsonl", _fill)),
    Parser("collection", "jsonl", _CORPUS, beside(lambda _: None, "corpus.jsonl", _whole_collection)),
    Parser("passages", "jsonl", _CORPUS, file("p.jsonl", lambda path: read_records(path, passage_fields))),
    Parser("names of modules", "lines", constant("shutil\njson\n"), file("modules.txt", _python_docs), cost=5),
    Parser("reference answers", "jsonl", _ANSWERS, file("a.jsonl", read_answers)),
    Parser(
        "reference answers of a collection", "jsonl", _ANSWERS, beside(lambda _: None, "answers.jsonl", _beir_pairs)
    ),
    Parser(
        "reference answers of queries",
        "jsonl",
        constant('{"_id": "q1", "text": "a", "metadata": {"answers": ["x"]}}\n'),
        file("q.jsonl", lambda path: read_records(path, asked_answers)),
    ),
    Parser("qrels", "lines", _QRELS, file("qrels.tsv", read_qrels)),
    Parser(
        "graded sample",
        "lines",
        lambda _: [*_QRELS(_), b"query_id\tpassage_id\tgrade\tinclusion\nq1\td1\t1\t0.25\nq1\td2\t\t1\n"],
        file("graded.tsv", read_graded_sample),
    ),
    Parser("pool of a run", "lines", _RUN, file("run.txt", _pooled)),
    Parser("candidates", "jsonl", _CANDIDATES, file("candidates.jsonl", _candidates)),
    Parser("candidates to judge", "jsonl", _CANDIDATES, file("candidates.jsonl", _candidates_to_judge)),
    Parser("run", "lines", _RUN, file("run.txt", lambda path: run_lines(read_run(path), "tag"))),
    Parser("nuggets of a reply", "json", constant('["a", "b"]', '```json\n["a"]\n```'), _text(read_list)),
    Parser("nugget lists", "jsonl", _nuggets, file("nuggets.jsonl", _nugget_lists)),
    Parser("assignments of nuggets", "jsonl", _assignments, file("assigned.jsonl", _nugget_scores)),
    Parser(
        "answers of systems",
        "jsonl",
        constant(
            '{"query_id": "q1", "run_id": "a", "text": "sort"}\n{"qid": 2, "run_id": "b", "answer": [{"text": "x"}]}'
        ),
        file("answers.jsonl", read_systems_answers),
    ),
    Parser("annotated pairs", "lines", written("pairs.tsv", _pairs), file("pairs.tsv", _read_pairs)),
    Parser(
        "labels to import",
        "lines",
        lambda _: [*_QRELS(_), b"query_id\tpassage_id\tgrade\tauthor\tnote\nq1\td1\t1\tana\tfine\n"],
        file("labels.tsv", _labels),
    ),
    Parser(
        "grades that other tools export",
        "json",
        constant(
            '[{"id": 3, "data": {"query_id": "q1", "passage_id": "d1#0"}, "annotations": [{"id": 7, "completed_by":'
            ' {"email": "a@b.example"}, "updated_at": "2026-01-01T00:00:00Z", "was_cancelled": false, "result":'
            ' [{"from_name": "grade", "value": {"choices": ["2"]}}, {"from_name": "note", "value": {"text":'
            ' ["y"]}}]}]}]',
            '[{"id": "x", "fields": {}, "metadata": {"query_id": "q1", "passage_id": "d1#0"}, "responses": {"grade":'
            ' [{"value": "2", "user_id": "u"}], "note": [{"value": "y", "user_id": "u"}]}}]',
        ),
        file("labels.json", _labels),
    ),
    Parser("scale map", "lines", constant("1=0,2=1,3=2,4=3"), _text(lambda text: parse_scale_map(text, "0-3"))),
    Parser(
        "where",
        "lines",
        constant(
            "grade=2 and p_relevant<0.6",
            "strategy=graded and missing=timeout and human",
            "judge=abc and query_id=q1 and entropy>=1.25",
        ),
        _text(parse_where),
    ),
    Parser(
        "frozen set",
        "json",
        written("set/set.json", _set),
        beside(_set, "set/set.json", lambda folder: FrozenSet.read(folder / "set")),
    ),
    Parser(
        "set without a forgotten query",
        "json",
        written("set/set.json", _set),
        beside(_set, "set/set.json", lambda folder: _forgotten(folder, "how")),
    ),
    Parser(
        "rows without a forgotten query",
        "jsonl",
        constant('{"query": "how"}\n{"text": ["why", {"a": "how"}]}\n', "q1\thow\nq2\twhy\n"),
        file("training/rows.jsonl", lambda path: _forgotten(path.parent.parent, "how")),
    ),
    Parser(
        "table with a forgotten query",
        "bytes",
        written("c.parquet", _parquet),
        file("c.parquet", lambda path: _forgotten(path.parent, "a")),
    ),
    Parser("message with a forgotten query", "bytes", constant(b"how", zstandard.compress(b"how")), _loosely),
    Parser("texts to forget", "lines", constant("how\nwhy\n"), file("texts", lines_of)),
    Parser(
        "manifest of an increment",
        "json",
        constant('{"collection": "docs", "format": "hf", "selection": {}, "rows": 1, "queries": 1, "sha256": "a"}'),
        lambda data, _: parse_manifest(data, "team/labels: manifest.json"),
    ),
    Parser("training data, triples", "jsonl", written("data.jsonl", _export("triples")), _examples),
    Parser("training data, labels", "jsonl", written("data.jsonl", _export("labels")), _examples),
    Parser("training data, divided", "jsonl", written("data.jsonl", _export("triples")), _divided),
)
