"""One whole turn of the loop over the Python documentation: labels, two trained models, the gate, the hot swap.

    make demo-loop       # or: python -m qrelay.demo.loop.run [--queries N] [--out demo-loop-output]

What it runs is what a user would type: `qrelay index build`, `qrelay index corpus`, `qrelay up`, and `qrelay rounds`,
which feeds, judges, mines, trains, evaluates, gates and promotes. It shows what the services serve before and after,
and ends with the gate's table. A model that is not better is rejected, and that is a result too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from qrelay.demo.answers import CORPUS
from qrelay.demo.answers import HERE as DEMO
from qrelay.demo.run import COLLECTION, qrelay, start_services, stop
from qrelay.output import Rows, show
from qrelay.rundir import require
from qrelay.runtime.client import get_info
from qrelay.training.gate.decide import decision_of
from qrelay.training.gate.table import decision_table
from qrelay.training.rounds.state import StateFile

HERE = Path(__file__).parent
SETS = ("frozen", "guard")
_INFO_S = 30
ALTERNATIVES = 5
QUERIES = 100


def training_queries(out: Path, limit: int, environ: dict[str, str]) -> None:
    """Write `limit` of the demo's queries and this folder's into one file, each with its neighbours among all of
    them, which the judge compares it with."""
    lines = [line for file in (DEMO / "queries.jsonl", HERE / "queries.jsonl") for line in _lines(file)]
    log, chosen = out / "log.jsonl", out / "chosen.jsonl"
    log.write_text("\n".join(lines) + "\n", "utf8")
    sample = random.Random(0).sample(lines, min(limit, len(lines)))
    chosen.write_text("\n".join(sample) + "\n", "utf8")
    qrelay("queries", "alternatives", str(chosen), "--log", str(log), "--n", str(ALTERNATIVES),
           "--out", str(out / "queries.jsonl"), environ=environ)  # fmt: skip


def evaluation_set(name: str, corpus: Path, out: Path) -> None:
    """Complete the committed queries and labels by the corpus of this very Python, as a frozen set in `out`/`name`.

    Labels of documents that another version of Python lacks are left out, and said; so are queries without any other.
    """
    source, target = HERE / name, out / name
    (target / "qrels").mkdir(parents=True)
    shutil.copy(corpus, target / "corpus.jsonl")
    known = {json.loads(line)["_id"] for line in _lines(corpus)}
    header, *rows = _lines(source / "qrels" / "test.tsv")
    held = [row for row in rows if row.split("\t")[1] in known]
    answered = {row.split("\t")[0] for row in held}
    asked = [line for line in _lines(source / "queries.jsonl") if json.loads(line)["_id"] in answered]
    (target / "qrels" / "test.tsv").write_text("\n".join([header, *held]) + "\n", "utf8")
    (target / "queries.jsonl").write_text("\n".join(asked) + "\n", "utf8")
    shutil.copy(source / "set.json", target / "set.json")
    if len(held) < len(rows):
        _say(f"{name}: {len(rows) - len(held)} labels name documents that this Python does not have; left out")


def _lines(file: Path) -> Iterator[str]:
    return (line for line in file.read_text("utf8").splitlines() if line.strip())


def served(state: Path) -> dict[str, str]:
    """service -> what the retriever and the reranker say that they serve: models, and details such as versions."""
    infos = {name: get_info(name, require(state, name).grpc, _INFO_S) for name in ("retriever", "reranker")}
    return {
        name: ", ".join(f"{role}: {model}" for role, model in sorted({**info.models, **info.details}.items()))
        for name, info in infos.items()
    }


def show_swap(before: dict[str, str], after: dict[str, str]) -> None:
    """What served, and what serves."""
    headings = ("service", "before", "after")
    rows = [(service, before[service], after[service]) for service in before]
    show(Rows(headings, rows, title="Hot swap, as GetInfo tells it", prose=headings[1:]))


def show_gate(state: Path) -> None:
    """The gate's table of every slot that was trained."""
    for at in StateFile(state, COLLECTION).read().rounds:
        for slot in at.slots:
            show(f"\n{slot.slot}: {slot.outcome}")
            show(decision_table(decision_of(slot.decision)) if slot.decision else slot.why)


def prepare(out: Path, environ: dict[str, str], limit: int) -> None:
    """Index, evaluation sets, the gate's rules beside them, training queries."""
    qrelay(
        "index", "build", CORPUS, "--collection", COLLECTION, "--out", str(out / "state" / "index"), environ=environ
    )
    qrelay("index", "corpus", CORPUS, "--out", str(out / "corpus.jsonl"), environ=environ)
    for name in SETS:
        evaluation_set(name, out / "corpus.jsonl", out)
    shutil.copy(HERE / "gate.yaml", out / "gate.yaml")
    training_queries(out, limit, environ)


def turn(out: Path, environ: dict[str, str]) -> None:
    """One round on running services, with what they serve before and after it."""
    state = out / "state"
    services = start_services(state, environ)
    try:
        before = served(state)
        # Nobody graded the demo's labels: the gate says what training on them gave.
        qrelay("rounds", "--n", "1", "--queries", str(out / "queries.jsonl"), "--collection", COLLECTION,
               "--unmeasured", environ=environ)  # fmt: skip
        show_swap(before, served(state))
    finally:
        stop(services)


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-loop-output"))
    parser.add_argument("--queries", type=int, default=QUERIES, help="Training queries, at most")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    (out / "state").mkdir(parents=True)
    environ = {
        **os.environ,
        "QRELAY_DATA_DIR": str(out / "state"),
        "QRELAY_CONFIG": str(HERE / "qrelay.yaml"),
        "QRELAY_TRAINER__GATE_RULES": str(out / "gate.yaml"),
    }
    started = time.monotonic()
    prepare(out, environ, arguments.queries)
    turn(out, environ)
    seconds = time.monotonic() - started
    _say(f"one turn over {arguments.queries} training queries in {seconds:.0f} s; everything is in {out}")
    show_gate(out / "state")


if __name__ == "__main__":
    main()
