"""Does `qrelay relabel` find false negatives, and do they matter to a model?

    python -m benchmarks.relabel plant --data MEDQUAD --out FOLDER --queries 100       # clean, dirty, tuning pairs
    qrelay judge calibrate --slice FOLDER/tune.tsv --relevant-from 1 --out FOLDER/maps.json --config judge.yaml
    qrelay relabel FOLDER/dirty.jsonl --out FOLDER/cleaned.jsonl --config relabel.yaml \
        --embedder all-MiniLM-L6-v2 --unmeasured --json-file FOLDER/report.json
    python -m benchmarks.relabel found --out FOLDER
    python -m benchmarks.relabel train --data MEDQUAD --out FOLDER [--head]

`plant` takes questions of MedQuAD's train part that two sources answer (`plant.py`): one of ten negatives of each is
an answer in truth. relabel.yaml is judge.yaml with `calibration: FOLDER/maps.json#fused+stages`. The tuning pairs are
of other questions than the set's. `found` says how many of the planted were dropped, and how many of the others were
kept. `train` trains one bi-encoder on each of the three sets, with the same steps, and compares them on the dev part,
paired by question; its corpus is the dev part's answers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.relabel.plant import examples, read, rows, tevatron
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.stats.intervals import wilson

NEGATIVES = 10
MOST = 200
"""Questions of a set; the tuning pairs are of those that are drawn after them."""
TUNING = 30
TUNING_NEGATIVES = 4


def plant(data: Path, out: Path, queries: int) -> None:
    """Writes clean.jsonl, dirty.jsonl, planted.jsonl and tune.tsv."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = list(examples(read(data, "train"), MOST + TUNING, NEGATIVES, 1))
    chosen, tuning = drawn[:queries], drawn[MOST:]
    for name, planted in (("clean", False), ("dirty", True)):
        lines = (orjson.dumps(tevatron(each, planted=planted), option=orjson.OPT_APPEND_NEWLINE) for each in chosen)
        (out / f"{name}.jsonl").write_bytes(b"".join(lines))
    planted_ids = {each["query_id"]: each["plant"]["docid"] for each in chosen}
    (out / "planted.json").write_text(json.dumps(planted_ids))
    write_annotated_pairs(out / "tune.tsv", list(_pairs(tuning)))
    print(
        f"{len(chosen)} questions, {len(chosen) * NEGATIVES} negatives, {len(chosen)} of them planted in dirty.jsonl"
    )


def _pairs(tuning: Sequence[Mapping[str, Any]]) -> Iterator[GradedPair]:
    for each in tuning:
        graded = [(each["positive"], 1), (each["plant"], 1)]
        graded += [(passage, 0) for passage in each["negatives"][:TUNING_NEGATIVES]]
        for passage, grade in graded:
            yield GradedPair(
                each["query_id"], passage["docid"], grade, each["query"], passage["title"], passage["text"]
            )


def found(out: Path) -> None:
    """How many of the planted negatives are gone from cleaned.jsonl, and how many of the others are there."""
    planted = json.loads((out / "planted.json").read_text())
    left = {row["query_id"]: _ids(row) for row in rows(out / "cleaned.jsonl")}
    there = {row["query_id"]: _ids(row) for row in rows(out / "dirty.jsonl")}
    caught = sum(doc_id not in left.get(query_id, ()) for query_id, doc_id in planted.items())
    kept, true = 0, 0
    for query_id, ids in there.items():
        others = ids - {planted[query_id]}
        true, kept = true + len(others), kept + len(others & left.get(query_id, set()))
    for what, part, whole in (("planted found", caught, len(planted)), ("true negatives kept", kept, true)):
        low, high = wilson(part, whole)
        print(f"{what}: {part} of {whole}, {part / whole:.1%} ({low:.1%} to {high:.1%})")


def _ids(row: Mapping[str, Any]) -> set[str]:
    return {each["docid"] for each in row["negative_passages"]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plant", "found", "train"])
    parser.add_argument("--data", type=Path, help="MedQuAD in BEIR's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3, help="of the whole model")
    parser.add_argument("--head", action="store_true", help="train a linear layer on the model's vectors instead")
    given = parser.parse_args(arguments)
    if given.what == "plant":
        plant(given.data, given.out, given.queries)
    elif given.what == "found":
        found(given.out)
    else:
        from benchmarks.relabel.training import train

        train(given.data, given.out, given.epochs, head=given.head)


if __name__ == "__main__":
    main()
