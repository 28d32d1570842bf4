"""One bi-encoder a training set, trained alike, and their rankings of the dev part compared by question.

Two ways: the whole model, by `qrelay train`; or (`head`) a linear layer on the model's vectors, which stay as they
are, over all negatives, in seconds on a processor. The loss is the same, infonce.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.relabel.plant import MedQuad, read, rows
from benchmarks.tables import MINILM
from benchmarks.utility import head as layers
from benchmarks.utility.labels import write
from benchmarks.utility.measuring import Columns, vectors
from qrelay.formats.beir import Collection, Run
from qrelay.stats.paired import compare
from qrelay.text import passage_text
from qrelay.training.data import Reading, load_examples
from qrelay.training.evaluation.answering import Options, answer
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.experiment import load_experiment
from qrelay.training.train import train as train_whole

SETS = ("dirty", "cleaned", "clean")
MEASURES = ("RR@10", "nDCG@10")
TOKENS = 64
"""Of a text: enough to tell answers apart, and few for a processor."""
HEAD = ("documents=11", "max_positives=1", "batch_size=16", "learning_rate=1e-3")
WHOLE = ("documents=5", "max_positives=1", "batch_size=10", "learning_rate=5e-5", f"max_length={TOKENS}")
SEED = 17


def train(data: Path, out: Path, epochs: int, *, head: bool) -> None:
    """Trains what has not been trained yet; measures on dev; prints the comparisons."""
    dev = collection(read(data, "dev"))
    measured: dict[str, Columns] = {}
    for name in ("base", *SETS):
        place = out / f"{'head' if head else 'dev'}-{name}.json"
        if name != "base" and not (out / f"{name}.jsonl").exists():
            continue
        if not place.exists():
            labels = None if name == "base" else labelled(out, name)
            run = _head(out, labels, dev) if head else _whole(out, labels, epochs, dev)
            values = evaluate(dev, "", run, MEASURES).values
            place.write_text(json.dumps({key: each.tolist() for key, each in values.items()}))
        measured[name] = {key: np.array(each) for key, each in json.loads(place.read_text()).items()}
        print(name, {key: round(float(each.mean()), 4) for key, each in measured[name].items()})
    for old, new in (("base", "clean"), ("dirty", "cleaned"), ("dirty", "clean"), ("clean", "cleaned")):
        if {old, new} <= measured.keys():
            for test in compare(measured[old], measured[new]):
                print(
                    f"{new} less {old}: {test.measure} {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}),"
                    f" p {test.p_fisher:.4f} (randomisation), {test.wins} won, {test.losses} lost"
                )


def collection(dev: MedQuad) -> Collection:
    """The dev questions, and their answers, which are the corpus."""
    asked = {each: text for each, text in dev.queries.items() if dev.gold.get(each)}
    doc_ids = sorted({doc_id for each in asked for doc_id in dev.gold[each]})
    passages = [dev.passage(each) for each in doc_ids]
    texts = [passage_text(each["title"], each["text"]) for each in passages]
    return Collection(doc_ids, texts, asked, {each: dict.fromkeys(dev.gold[each], 1) for each in asked})


def labelled(out: Path, name: str) -> Path:
    """A training set as an export of labels."""
    path = out / f"{name}.labels.jsonl"
    sides = (("positive", "positive_passages", 1.0), ("negative", "negative_passages", 0.0))
    write(path, [
        {"query_id": row["query_id"], "query": row["query"],
         "passages": [{"passage_id": each["docid"], "title": each["title"], "text": each["text"], "p_relevant": p,
                       "role": role} for role, field, p in sides for each in row[field]]}
        for row in rows(out / f"{name}.jsonl")
    ])  # fmt: skip
    return path


def _whole(out: Path, labels: Path | None, epochs: int, dev: Collection) -> Run:
    model: str | Path = MINILM
    if labels:
        stages = f"stages=[{{name: weak, epochs: {epochs}}}]"
        experiment = load_experiment("infonce_only", [*WHOLE, f"seed={SEED}", stages])
        model = train_whole(experiment, [str(labels)], out / f"whole-{labels.name.partition('.')[0]}")
    return answer(dev, model, Options(depth=10, max_length=TOKENS))


def _head(out: Path, labels: Path | None, dev: Collection) -> Run:
    examples = load_examples([labels], Reading())[0] if labels else []
    texts: list[Sequence[str]] = [dev.texts, list(dev.queries.values())]
    texts += [[each.query for each in examples], [each.text for one in examples for each in one.documents]]
    known = vectors(out / "vectors", [each for each in texts if each])
    layer = layers.train(examples, known, load_experiment("infonce_only", HEAD), SEED) if examples else None
    return layers.run(dev, known, layer)
