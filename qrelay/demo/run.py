"""The demo: how-to questions over the Python documentation, labelled by four processes on real models.

    qrelay demo          # `make demo` in a checkout

What it runs is what a user would type: `qrelay models tune`, `qrelay index build`, `qrelay up`,
`qrelay feed --wait`, `qrelay export`. It ends with a table of what was found, how much of it is right by the answer
key (answers.yaml), what it cost, and where the files are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from qrelay.demo.answers import CORPUS, HERE, SETS, Key, Verdict, demo_documents, read_key
from qrelay.errors import ConfigError
from qrelay.judging.settings import JudgeSettings
from qrelay.labels.settings import SinkSettings
from qrelay.output import Rows, show
from qrelay.rundir import endpoints, require
from qrelay.runtime.client import channel
from qrelay.runtime.lookout import LOOK_S, is_ready
from qrelay.services.sink.sink import load_sink
from qrelay.settings import load_settings
from qrelay.types import Passage
from qrelay.v1 import sink_pb2, sink_pb2_grpc

COLLECTION = "python-docs"
SERVICES = 4
MADE = frozenset({"state"} | {f"{name}{rest}" for name in ("python-docs.qrels", "triples.jsonl")
                              for rest in ("", ".manifest.json")})  # fmt: skip
"""What a run leaves in its folder."""
CONFIRMS = "qwen2.5-coder-1.5b-instruct"
"""The judge that is asked about the passages near the best too; a smaller one answers worse than it reads."""


def qrelay(*arguments: str, environ: dict[str, str], needed: bool = True) -> None:
    """A qrelay command, shown and run; the demo ends where one that is needed fails."""
    Console(stderr=True).print(f"$ qrelay {' '.join(arguments)}", style="bold", highlight=False, markup=False)
    code = subprocess.run([sys.executable, "-m", "qrelay.cli.main", *arguments], env=environ, check=False).returncode
    if code and needed:
        raise SystemExit(f"qrelay {arguments[0]} ended with {code}; its output above says why")


def start_services(state: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """`qrelay up`, ready. It says itself what its services do, and ends where they do not get on."""
    Console(stderr=True).print("$ qrelay up", style="bold", highlight=False)
    process = subprocess.Popen([sys.executable, "-m", "qrelay.cli.main", "up", "--port-base", "0"], env=environ)
    while process.poll() is None:
        found = [endpoint for name, endpoint in endpoints(state).items() if name != "nats"]
        if len(found) == SERVICES and all(is_ready(endpoint) for endpoint in found):
            return process
        time.sleep(LOOK_S)
    raise SystemExit(f"qrelay up ended with {process.returncode}; its output above says why")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Drain and end; `up` limits how long that takes."""
    process.terminate()
    process.wait()


def strategy(state: Path) -> dict[str, str]:
    """The variable that has the tuned judge ask, where it can."""
    model = load_settings(JudgeSettings, "judge", file=HERE / "qrelay.yaml", data_dir=state).model
    return {"QRELAY_JUDGE__STRATEGY": "confirmed_likelihood"} if model == CONFIRMS else {}


def best_passages(state: Path) -> list[dict[str, Any]]:
    """For each query its best judged passage, read from the ledger, and what else was judged."""
    sink = load_sink(load_settings(SinkSettings, "sink", file=HERE / "qrelay.yaml", data_dir=state))
    rows = []
    with sink.ledger.snapshot() as snapshot:
        for query in snapshot.labelled_queries(COLLECTION):
            texts = {candidate.passage.passage_id: candidate.passage for candidate in query.candidates}
            graded = [label for label in query.labels if label.p_relevant is not None]
            best = max(graded, key=lambda label: (label.p_relevant or 0.0, label.passage_id), default=None)
            rows.append({
                "query": query.text,
                "passage": texts[best.passage_id] if best else None,
                "grade": best.grade if best else None,
                "p_relevant": best.p_relevant if best else None,
                "judged": len(graded),
                "missing": len(query.labels) - len(graded),
            })  # fmt: skip
    sink.close()
    return rows


def statistics(state: Path) -> sink_pb2.CollectionStats:
    """The sink's counts, asked while it runs."""
    with channel(require(state, "sink").grpc) as opened:
        request = sink_pb2.GetStatsRequest(collection=COLLECTION)
        return sink_pb2_grpc.SinkServiceStub(opened).GetStats(request, timeout=30).collections[0]


def report(out: Path, stats: sink_pb2.CollectionStats, seconds: float) -> None:
    """The table, the counts, the cost, what the answer key says, and the files."""
    found, documents = best_passages(out / "state"), list(demo_documents())
    keys = {name: read_key(folder, documents) for name, folder in SETS.items()}
    headings, rows = ("query", "best passage", "right", "grade", "P(relevant)"), [_row(row, keys) for row in found]
    show(Rows(headings, rows, title="What was found", prose=headings[:2]))
    console = Console(highlight=False)
    file = out / "triples.jsonl"
    triples = [json.loads(line) for line in file.read_text("utf8").splitlines()] if file.exists() else []
    reasons = [negative["reason"] for each in triples for negative in each["negatives"]]
    made = (
        f"{len(triples)} queries with training triples, {len(reasons)} judged negatives, {reasons.count('easy')} of"
        " them easy"
        if file.exists()
        else "no training triples: the export above says why"
    )
    console.print(
        f"{stats.queries} queries labelled by four processes in {seconds:.0f} s: {stats.judgments} judgments, "
        f"{stats.missing_judgments} missing, {stats.open_dead_letters} dead letters\n"
        f"{made}\n"
        f"cost: {stats.prompt_tokens} LLM tokens ({stats.cached_judgments} judgments came from the cache)"
    )
    for name, key in keys.items():
        for line in by_key(key, found, triples):
            console.print(f"by the answer key of {name}: {line}")
    for name, what in (("python-docs.qrels", "TREC qrels"), ("triples.jsonl", "training triples"),
                       ("state/ledger.sqlite", "the ledger"), ("state/logs", "the services' logs")):  # fmt: skip
        if (out / name).exists():
            console.print(f"  {what:<18} {out / name}", highlight=False)


def _row(row: dict[str, Any], keys: dict[str, Key]) -> tuple[str, ...]:
    probability = "-" if row["p_relevant"] is None else f"{row['p_relevant']:.2f}"
    verdict = next((_verdict(key, row) for key in keys.values() if row["query"] in key.answers), "-")
    return row["query"], row["passage"].title if row["passage"] else "", verdict, str(row["grade"]), probability


def _verdict(key: Key, row: dict[str, Any]) -> Verdict:
    return key.verdict(row["query"], row["passage"]) if row["passage"] else Verdict.WRONG


def by_key(key: Key, found: list[dict[str, Any]], triples: list[dict[str, Any]]) -> Iterator[str]:
    """What the key says of best passages and of negatives; nothing where none of its questions was asked."""
    asked = [row for row in found if row["query"] in key.answers]
    if not asked:
        return
    best = [_verdict(key, row) for row in asked]
    yield f"{best.count(Verdict.RIGHT)} of {len(best)} best passages are right{_unread(best)}"
    negatives = [
        key.verdict(each["query"], Passage(*(negative[name] for name in ("passage_id", "doc_id", "title", "text"))))
        for each in triples if each["query"] in key.answers
        for negative in each["negatives"]
    ]  # fmt: skip
    yield f"{negatives.count(Verdict.RIGHT)} of {len(negatives)} negatives are answers{_unread(negatives)}"
    if nowhere := len({row["query"] for row in asked} & key.unanswered):
        yield f"{nowhere} of {len(asked)} questions have no answer in this Python's documentation"


def _unread(verdicts: list[Verdict]) -> str:
    count = verdicts.count(Verdict.UNREAD)
    return f"; {count} not checked by anyone" if count else ""


def cleared(out: Path) -> Path:
    """The folder, empty but for a new `state`. Raises ConfigError: it holds what no run of the demo made."""
    if out.exists() and (not out.is_dir() or {each.name for each in out.iterdir()} - MADE):
        raise ConfigError(f"{out} holds what no demo made, and would be replaced: choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    state = out / "state"
    state.mkdir(parents=True)
    return state


def run(out: Path, queries: Path, further: bool) -> None:
    """The whole demo into `out`; `further` asks the twenty further questions too."""
    state = cleared(out)
    environ = {**os.environ, "QRELAY_DATA_DIR": str(state), "QRELAY_CONFIG": str(HERE / "qrelay.yaml"),
               "QRELAY_CONSOLE__ENABLED": "false"}  # fmt: skip
    qrelay("models", "tune", environ=environ)
    environ = strategy(state) | environ
    started = time.monotonic()
    qrelay("index", "build", CORPUS, "--collection", COLLECTION,
           "--out", str(state / "index"), environ=environ)  # fmt: skip
    services = start_services(state, environ)
    try:
        for file in [queries, *([HERE / "further" / "queries.jsonl"] if further else [])]:
            qrelay("feed", str(file), "--collection", COLLECTION, "--wait", environ=environ)
        stats = statistics(state)
    finally:
        stop(services)
    qrelay("export", "qrels", "--collection", COLLECTION, "--out", str(out / "python-docs.qrels"), environ=environ)
    # Nobody graded the demo's labels: its triples show what they look like. A judge may find none.
    qrelay("export", "triples", "--collection", COLLECTION, "--out", str(out / "triples.jsonl"), "--unmeasured",
           environ=environ, needed=False)  # fmt: skip
    report(out, stats, time.monotonic() - started)
