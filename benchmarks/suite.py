"""`make bench`: every benchmark of docs/benchmarks.md, one after the other, on this machine.

    python -m benchmarks.suite [NAME …] [--out docs/benchmarks] [--quick]

The runs are `qrelay bench` commands with the demo's corpus and questions (Python documentation), then each service
beside its bare library (`python -m benchmarks.references`). Each leaves its report.json and diagrams in a folder of
--out; `scripts/benchmarks_page.py` makes docs/benchmarks.md and the sizing table of docs/operations.md of them.
About an hour on two cores. Leave the machine alone meanwhile; reports say how busy it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.references import reranker
from benchmarks.references.__main__ import COLLECTION, JUDGE, build_index, describe, run
from qrelay.bench.running import Fleet, Plan
from qrelay.demo.answers import HERE as DEMO

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "benchmarks"
REFERENCES = "references.json"
PASSAGES = 5
"""Passages a query of the judge's runs: with 25 a model on two cores needs half a minute a query."""


@dataclass(frozen=True)
class Material:
    """What the runs read: made once, in a temporary folder."""

    index: Path
    cross_encoder: Path
    sets: Path


@dataclass(frozen=True)
class Run:
    """One `qrelay bench` command. `environ`: settings of the services that it starts."""

    name: str
    arguments: Callable[[Material], list[str]]
    environ: Callable[[Material], dict[str, str]] = field(default=lambda _: {})


def _queries(_: Material) -> list[str]:
    return ["--queries", str(DEMO / "queries.jsonl"), "--collection", COLLECTION]


def _index(material: Material) -> dict[str, str]:
    return {"QRELAY_RETRIEVER__INDEX_DIR": str(material.index)}


def _cross_encoder(material: Material) -> dict[str, str]:
    return {"QRELAY_RERANKER__SCORER": "cross_encoder",
            "QRELAY_RERANKER__CROSS_ENCODER": f"path:{material.cross_encoder}"}  # fmt: skip


def _judge(backend: str, strategy: str) -> Callable[[Material], dict[str, str]]:
    return lambda _: {"QRELAY_JUDGE__BACKEND": backend, "QRELAY_JUDGE__MODEL": JUDGE,
                      "QRELAY_JUDGE__STRATEGY": strategy}  # fmt: skip


def _small_batches(_: Material) -> dict[str, str]:
    """Nearer to a real judge's (2): with batches of 32 queries of 100 ms commits come in bursts 3 s apart."""
    return {"QRELAY_JUDGE__WORKER__MAX_ITEMS": "4"}


_SLOW = ["--concurrency", "1,2", "--rates", "none", "--max-windows", "2"]
RUNS = (
    Run("retriever", lambda m: ["retriever", *_queries(m)], _index),
    Run("retriever-32", lambda m: ["retriever", *_queries(m), "--items-per-request", "32"], _index),
    Run("reranker", lambda m: ["reranker", "--sets", str(m.sets), *_SLOW], _cross_encoder),
    Run("judge-llamacpp", lambda m: ["judge", "--sets", str(m.sets), *_SLOW], _judge("llamacpp", "graded")),
    Run("judge-transformers", lambda m: ["judge", "--sets", str(m.sets), *_SLOW],
        _judge("transformers", "query_likelihood")),
    Run("sink", lambda m: ["sink", "--items-per-request", "32"]),
    Run("pipeline", lambda m: ["pipeline", "--service-time", "judge=20ms", "--efficiency", "--idle", "60s"]),
    Run("pipeline-scale", lambda m: ["pipeline", "--service-time", "judge=100ms", "--scale", "1,2,4,8",
                                     "--concurrency", "40", "--rates", "none", "--window", "8s"], _small_batches),
    Run("pipeline-disturbed", lambda m: ["pipeline", "--service-time", "judge=100ms", "--judges", "3",
                                         "--disturb", "kill:judge@20s,drain:judge@45s", "--concurrency", "300",
                                         "--rates", "none"], _small_batches),
)  # fmt: skip
SERVICES = ("retriever", "reranker", "judge", "sink")


@contextlib.contextmanager
def prepared(names: set[str]) -> Iterator[Material]:
    """The index, the cross-encoder and the recorded sets, as far as these runs need them."""
    with tempfile.TemporaryDirectory() as folder:
        material = Material(Path(folder) / "index", Path(folder) / "cross-encoder", Path(folder) / "sets.bin")
        if names & {"retriever", "retriever-32", "reranker", "judge-llamacpp", "judge-transformers", "references"}:
            build_index(material.index)
        if "reranker" in names:
            reranker.make_cross_encoder(material.cross_encoder)
        if names & {"reranker", "judge-llamacpp", "judge-transformers"}:
            _record(material)
        yield material


def _record(material: Material) -> None:
    """What the retriever and the reranker make of the demo's questions."""
    environ = {**_index(material), "QRELAY_RERANKER__SAMPLE": str(PASSAGES), "QRELAY_RERANKER__SAMPLE_HEAD": "2"}
    with Fleet(Plan(environ=environ)) as fleet:
        found = fleet.start(["retriever", "reranker"])
        _qrelay(["bench", "record", *_queries(material), "--retriever", found["retriever"].grpc,
                 "--reranker", found["reranker"].grpc, "--out", str(material.sets)])  # fmt: skip


def _qrelay(arguments: list[str], environ: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "qrelay.cli.main", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **(environ or {})})


def measure(chosen: Run, material: Material, out: Path, quick: bool) -> None:
    """One run; its folder is replaced whole when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        made, target = Path(folder) / chosen.name, out / chosen.name
        arguments = ["bench", *chosen.arguments(material), *(["--quick"] if quick else []), "--out", str(made)]
        _qrelay(arguments, chosen.environ(material))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target, ignore=shutil.ignore_patterns("table.md", "report.html"))


def main() -> None:
    """See the module."""
    names = [each.name for each in RUNS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"Of {', '.join(names)}, references. All of them by default.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="Short windows, for a look.")
    arguments = parser.parse_args()
    wanted = set(arguments.names or [*names, "references"])
    if unknown := wanted - {*names, "references"}:
        raise SystemExit(f"there is no run {', '.join(sorted(unknown))}: there are {', '.join(names)}, references")
    with prepared(wanted) as material:
        for each in RUNS:
            if each.name in wanted:
                print(f"== {each.name} ({time.strftime('%H:%M:%S')})", file=sys.stderr, flush=True)
                measure(each, material, arguments.out, arguments.quick)
        if "references" in wanted:
            found = run(list(SERVICES), 2 if arguments.quick else 7, material.index)
            print(describe(found))
            (arguments.out / REFERENCES).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
