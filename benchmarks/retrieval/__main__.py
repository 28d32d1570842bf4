"""The retriever over up to millions of passages, beside bare bm25s and FAISS on the same index.

    python -m benchmarks.retrieval build --base FOLDER --count 1000000 --out DIR [--ann hnsw] [--vectors int8]
    python -m benchmarks.retrieval run --index DIR --collection p1000000-hnsw --queries FILE [--rounds 5]
    python -m benchmarks.retrieval recall --index DIR --collection … --queries FILE
    python -m benchmarks.retrieval vectors --base FOLDER --count 10000000 --out DIR --queries FILE [--ann ivf-sq]
    python -m benchmarks.retrieval plot --results FOLDER    # what `run` and `recall` printed: *.json

base: a version built by `qrelay index build` with a real model. Each prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.references import retriever
from benchmarks.references.__main__ import batches, compare, serving
from benchmarks.references.turns import Comparison
from benchmarks.retrieval.resampled import Prepared, Resampled
from qrelay.bench.environment import environment
from qrelay.bench.targets.recorded import Recorded, read_queries
from qrelay.formats.queries import read_queries as query_lines
from qrelay.index.ann import AnnRequest, AnnSearch, best, build_ann, tuned
from qrelay.index.arrays import NpyWriter
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.embedded import EmbeddedEngine
from qrelay.index.manifest import current_folder, dead_rows, read_manifest
from qrelay.index.ranking import Depths
from qrelay.index.stored import VECTORS, StoredVectors, row_of
from qrelay.index.stored import stored as as_stored
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.engines import engine_of
from qrelay.progress import Progress, heard, listening
from qrelay.reports.plots import COLOURS, canvas, png

BATCH = 32
WRITTEN = 1 << 14


def build(options: argparse.Namespace) -> dict[str, Any]:
    """A build by the steps of every build, with vectors that are made instead of embedded; seconds a step."""
    made = Resampled(options.base, options.count)
    options.out.mkdir(parents=True, exist_ok=True)
    corpus = options.out / f"corpus-{options.count}.jsonl"
    made.write(corpus)
    ann = AnnRequest(options.ann, options.recall, options.links)
    request = BuildRequest(
        str(corpus), f"p{options.count}-{options.ann}", options.out, vectors=options.vectors, ann=ann,
        questions=options.queries,
    )  # fmt: skip
    spent: dict[str, float] = {}
    show = heard()
    last = time.monotonic()

    def timed(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        spent[progress.name] = spent.get(progress.name, 0.0) + now - last
        last = now
        show(progress)

    with listening(timed):
        result = build_index(request, Prepared.of(options.base, made), print)
    facts = result.manifest
    return {
        "passages": facts.passages,
        "ann": facts.ann.model_dump() if facts.ann else None,
        "seconds": facts.build_seconds,
        "steps": {name: round(seconds, 1) for name, seconds in spent.items()},
        "bytes": {entry.path: entry.size_bytes for entry in facts.files},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "environment": environment(),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Batches of 32 through gRPC beside the bare libraries on the same files, by turns."""
    folder = current_folder(options.index / options.collection)
    source = Recorded("query", read_queries(options.queries, options.collection), tag="bench")
    embedder = _embedder(read_manifest(folder).embedder)
    encode = partial(embedder.encode, kind="query")
    library = retriever.Bare(options.index, options.collection, embedder.name, encode)

    def bare(items: range) -> None:
        for numbers in batches(items, BATCH):
            library.search([source.item(number).text for number in numbers])

    facts = read_manifest(folder)
    details = {"passages": facts.passages, "ann": facts.ann.model_dump() if facts.ann else None}
    comparison = Comparison("retriever", retriever.LIBRARY, "queries", options.items, details)
    environ = {
        "QRELAY_RETRIEVER__INDEX_DIR": str(options.index),
        "QRELAY_RETRIEVER__COLLECTIONS": json.dumps([options.collection]),
        "QRELAY_RETRIEVER__REGISTRY_POLL_S": "0",
    }
    with serving("retriever", environ) as at:
        return asyncio.run(compare(comparison, at.grpc, source, BATCH, bare, options.rounds))


def _embedder(fingerprint: str) -> Embedder:
    """That of an index, in its engine: both sides embed alike."""
    return load_embedder(fingerprint.partition("@")[0], engine=engine_of(fingerprint))


def recall(options: argparse.Namespace) -> dict[str, Any]:
    """Recall at 100 on the file's questions, over all vectors; how long opening takes, and a search at efforts."""
    folder = current_folder(options.index / options.collection)
    facts, stored = read_manifest(folder), StoredVectors.open(folder)
    embedder = _embedder(facts.embedder)
    texts: list[str] = [each.text for each in query_lines(options.queries)][: options.items]
    queries = embedder.encode(texts, "query")
    exact = [
        np.argpartition(-row, 99)[:100]
        for start in range(0, len(queries), 16)
        for row in stored.similarities(queries[start : start + 16])
    ]
    assert facts.ann is not None
    began = time.monotonic()
    engine = EmbeddedEngine(folder, Depths())
    opened = time.monotonic() - began
    engine.search(texts[:1], queries[:1], 100)
    first = time.monotonic() - began
    search, rows = AnnSearch(folder, facts.ann.kind, dead_rows(folder)), []
    for effort in sorted({facts.ann.effort, *(100, 140, 200, 280, 400, 560, 800, 8, 16, 32, 64, 128, 256)}):
        began = time.monotonic()
        near = search.near(queries, 100, effort)
        seconds = time.monotonic() - began
        ordered = [best(stored, each, query, 100) for each, query in zip(near, queries, strict=True)]
        found = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(exact, ordered, strict=True)])
        rows.append({"effort": effort, "recall": float(found), "queries_per_s": len(queries) / seconds})
    return {
        "passages": facts.passages,
        "ann": facts.ann.model_dump(),
        "opened_s": opened,
        "first_answer_s": first,
        "efforts": rows,
    }


def vectors(options: argparse.Namespace) -> dict[str, Any]:
    """The approximate index of vectors alone, without texts: seconds, memory, bytes, recall and searches a second."""
    folder, made = options.out / f"v{options.count}-{options.ann}", Resampled(options.base, options.count)
    form, request = options.vectors, AnnRequest(options.ann, options.recall, options.links)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    if not (folder / VECTORS).exists():
        with NpyWriter(folder / VECTORS, *row_of(form, made.dim)) as out:
            for first in range(0, options.count, WRITTEN):
                out.append(as_stored(made.vectors(first, min(first + WRITTEN, options.count)), form))
    rows, written = StoredVectors.open(folder), time.monotonic()
    kind = request.choose(len(rows), rows.dim)
    build_ann(rows, folder, folder, kind, request.links)
    built = time.monotonic()
    embedder = _embedder(read_manifest(options.base).embedder)
    queries = embedder.encode([each.text for each in query_lines(options.queries)][: options.items], "query")
    search = AnnSearch(folder, kind, np.empty(0, np.int64))
    found, tuning = tuned(search, kind, rows, queries, options.recall, built - written), time.monotonic()
    rates = []
    for _ in range(options.rounds):
        started = time.monotonic()
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            for near, query in zip(search.near(batch, 100, found.effort), batch, strict=True):
                best(rows, near, query, 100)
        rates.append(len(queries) / (time.monotonic() - started))
    return {
        "vectors": len(rows),
        "form": form,
        "ann": found.model_dump(),
        "seconds": {"writing": written - began, "index": built - written, "tuning": tuning - built},
        "bytes": {path.name: path.stat().st_size for path in folder.iterdir()},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "queries_per_s": rates,
        "environment": environment(),
    }


def plot(options: argparse.Namespace) -> dict[str, Any]:
    """Curves of the results in a folder, into it."""
    found = [json.loads(path.read_text("utf8")) for path in sorted(options.results.glob("*.json"))]
    growth, axes = canvas(6, 3.6, "both")
    runs = sorted((each for each in found if "service_rate" in each), key=lambda each: each["details"]["passages"])
    best_runs = [each for each in runs if _kind(each["details"]["ann"]) in ("exact", "hnsw")]
    sizes = [each["details"]["passages"] for each in best_runs]
    axes.plot(sizes, [each["service_rate"] for each in best_runs], "o-", color=COLOURS[0], label="qrelay, gRPC")
    axes.plot(sizes, [each["library_rate"] for each in best_runs], "s--", color=COLOURS[1], label="bm25s + FAISS")
    for each in best_runs:
        axes.annotate(_kind(each["details"]["ann"]), (each["details"]["passages"], each["service_rate"]))
    axes.set(xscale="log", xlabel="passages", ylabel="queries/s in batches of 32", ylim=(0, None))
    axes.legend(frameon=False)
    curves, axes = canvas(6, 3.6, "both")
    for colour, each in zip(COLOURS, (each for each in found if "efforts" in each), strict=False):
        points = sorted({(row["recall"], row["queries_per_s"]) for row in each["efforts"]})
        label = f"{each['ann']['kind']}, {each['passages']:,} passages"
        axes.plot(*zip(*points, strict=True), ".-", color=colour, label=label)
    axes.set(yscale="log", xlabel="recall of the 100 nearest, MedQuAD's dev questions", ylabel="searches/s")
    axes.legend(frameon=False)
    for name, figure in (("growth.png", growth), ("recall.png", curves)):
        (options.results / name).write_bytes(png(figure))
    return {"runs": len(best_runs)}


def _kind(ann: dict[str, Any] | None) -> str:
    return str(ann["kind"]) if ann else "exact"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, action in (("build", build), ("run", run), ("recall", recall), ("vectors", vectors), ("plot", plot)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        if name == "plot":
            command.add_argument("--results", type=Path, required=True)
            continue
        command.add_argument("--queries", type=Path)
        if name in ("build", "vectors"):
            command.add_argument("--base", type=Path, required=True)
            command.add_argument("--count", type=int, required=True)
            command.add_argument("--out", type=Path, required=True)
            command.add_argument("--ann", default="auto")
            command.add_argument("--vectors", default="float32")
            command.add_argument("--recall", type=float, default=0.98)
            command.add_argument("--links", type=int, default=32)
        else:
            command.add_argument("--index", type=Path, required=True)
            command.add_argument("--collection", required=True)
        if name != "build":
            command.add_argument("--items", type=int, default=320)
            command.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(options.action(options), indent=1))


if __name__ == "__main__":
    main()
