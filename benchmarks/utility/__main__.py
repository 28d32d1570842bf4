"""Do labels of utility train a better retriever than labels of relevance of the same pairs?

    python -m benchmarks.utility label   --data FOLDER --out WORK --cache FILE    # hours; killed, it goes on
    python -m benchmarks.utility agree   --data FOLDER --out WORK --cache FILE    # labels beside people's grades
    python -m benchmarks.utility train   --data FOLDER --out WORK --cache FILE    # label kinds x losses
    python -m benchmarks.utility answers --data FOLDER --out WORK --cache FILE    # what a reader makes of it; goes on
    python -m benchmarks.utility whole   --data FOLDER --out WORK --cache FILE    # whole models by `qrelay train`

FOLDER holds medquad and liveqa-med in BEIR's layout. Labels are made by MODEL on one thread: how much likelier a
passage makes the reference answer (`answer`) and the question (`query`); `key` is what people or the answer key say.
`pairs.py` says why the reference is no candidate; `head.py` what is trained. What is chosen is chosen on one half of
MedQuAD's dev questions. Every step writes WORK/STEP.json. docs/judge.md has the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.relabel.plant import read as read_medquad
from benchmarks.utility import head, labels, measuring
from benchmarks.utility.answering import Asked, answered
from benchmarks.utility.grid import LOSSES, SEEDS, chosen, cross_trained, measured, over_seeds, tests
from benchmarks.utility.pairs import in_parts, medquad
from qrelay.formats.annotated_pairs import GradedPair, read_beir
from qrelay.formats.beir import Collection, Run
from qrelay.judging.cache import open_cache
from qrelay.judging.qualification.table import Table
from qrelay.training.experiment import Experiment, load_experiment

MODEL: Final = "qwen2.5-coder-0.5b-instruct"
PARTS: Final = 4
KINDS: Final = ("answer", "query", labels.KEY)
MEDQUAD, LIVEQA = "medquad", "liveqa-med"
RELEVANT: Final = {MEDQUAD: 1, LIVEQA: 3}


class Study:
    """One working folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.data: Path = arguments.data
        self.out: Path = arguments.out
        self.cache: Path = arguments.cache
        self.queries_from: Path = arguments.queries_from or arguments.cache
        self.loss: str = arguments.loss
        self.out.mkdir(parents=True, exist_ok=True)

    @cached_property
    def pairs(self) -> dict[str, list[GradedPair]]:
        """collection -> what is labelled."""
        folder = self.data / LIVEQA
        graded = read_beir(folder, folder / "queries.dev.jsonl", folder / "qrels.dev.tsv",
                           answers=folder / "answers.dev.jsonl")  # fmt: skip
        return {MEDQUAD: medquad(read_medquad(self.data / MEDQUAD, "train")), LIVEQA: graded}

    @cached_property
    def dev(self) -> tuple[Collection, Collection]:
        """MedQuAD's dev: the half to choose on, and the half to measure on."""
        data = read_medquad(self.data / MEDQUAD, "dev")
        return measuring.medquad_dev(data, 0), measuring.medquad_dev(data, 1)

    @cached_property
    def liveqa(self) -> Collection:
        """LiveQA-Med's dev questions."""
        return measuring.liveqa(self.pairs[LIVEQA])

    @cached_property
    def vectors(self) -> head.Vectors:
        """Of every text."""
        pairs = [measuring.texts_of(each) for each in self.pairs.values()]
        asked = [[*each.queries.values()] for each in self.dev]
        asked += [[pair.query for pair in each] for each in self.pairs.values()]
        return measuring.vectors(self.out / "vectors", [*pairs, self.dev[0].texts, [q for each in asked for q in each]])

    def recorded(self, name: str) -> Table:
        """The pairs of a collection that have both labels."""
        tables = {}
        for kind, path in (("answer", self.cache), ("query", self.queries_from if name == LIVEQA else self.cache)):
            cache = open_cache(str(path))
            try:
                tables[kind] = labels.recorded(cache, self.pairs[name], kind, MODEL, RELEVANT[name])
            finally:
                cache.close()
        return measuring.joined(tables, measuring.cosines(self.pairs[name], self.vectors))

    def files(self, name: str) -> dict[str, Path]:
        """Each kind's labels of the same pairs."""
        table = self.recorded(name)
        columns = {kind: table.column(kind) for kind in table.labels} | {labels.KEY: table.grades.astype(float)}
        found = {}
        for kind, column in columns.items():
            found[kind] = self.out / f"{name}-{kind}.jsonl"
            labels.write(found[kind], labels.lines(table.pairs, column))
        return found

    def label(self) -> None:
        """Every pair, LiveQA-Med in parts."""
        with labels.labellers(MODEL, self.cache) as panel:
            for part in (self.pairs[MEDQUAD], *in_parts(self.pairs[LIVEQA], PARTS)):
                labels.label(panel, part, lambda count: print(count, end=" ", flush=True))

    def agree(self) -> dict[str, Any]:
        """Labels beside people's grades and beside the answer key."""
        return {name: measuring.agreement(self.recorded(name)) for name in self.pairs}

    def train(self) -> dict[str, Any]:
        """Every kind of label with every loss: MedQuAD's, on MedQuAD and LiveQA-Med; LiveQA-Med's, cross-trained."""
        transfer, own = {kind: head.read(path) for kind, path in self.files(MEDQUAD).items()}, self.files(LIVEQA)
        choosing, dev = self.dev
        base = {name: measured(held, head.run(held, self.vectors, None)) for name, held in self._held().items()}
        found: dict[str, Any] = {"base": {name: _means(each) for name, each in base.items()}, "systems": {}}
        columns: dict[tuple[str, str, str], Any] = {}
        runs: dict[str, list[Run]] = {"base": [head.run(self.liveqa, self.vectors, None)]}
        for loss in LOSSES:
            for kind, examples in transfer.items():
                experiment = chosen(examples, self.vectors, loss, choosing, 5)
                print(kind, loss, experiment.learning_rate, experiment.teacher_temperature, flush=True)
                layers = [head.train(examples, self.vectors, experiment, seed) for seed in range(SEEDS)]
                wide = experiment.model_copy(update={"documents": 24, "max_positives": 12})
                crossed = [cross_trained(head.read(own[kind]), self.vectors, wide, self.liveqa, seed) for seed in range(SEEDS)]
                seen = {"medquad dev": [head.run(dev, self.vectors, each) for each in layers],
                        "liveqa-med, from medquad": [head.run(self.liveqa, self.vectors, each) for each in layers],
                        "liveqa-med, cross-trained": crossed}  # fmt: skip
                runs[f"{kind}, {loss}"] = crossed
                runs[f"{kind}, {loss}, from medquad"] = seen["liveqa-med, from medquad"]
                for where, each in seen.items():
                    held = dev if where == "medquad dev" else self.liveqa
                    columns[where, loss, kind] = over_seeds([measured(held, run) for run in each])
                found["systems"][f"{kind}, {loss}"] = _chosen(experiment)
        found["results"] = _results(columns, base)
        (self.out / "runs.json").write_text(json.dumps(runs))
        return found

    def _held(self) -> dict[str, Collection]:
        return {"medquad dev": self.dev[1], "liveqa-med": self.liveqa}

    def answers(self) -> dict[str, Any]:
        """The reader's answers from each system's first passage."""
        runs = json.loads((self.out / "runs.json").read_text())
        return answered(Asked(self.pairs[LIVEQA], self.liveqa, self.out, self.cache), runs)

    def whole(self) -> dict[str, Any]:
        """Whole models on MedQuAD's labels, by `qrelay train`, with the loss of --loss."""
        from qrelay.training.evaluation.answering import answer
        from qrelay.training.train import train

        found = {}
        for kind, path in self.files(MEDQUAD).items():
            experiment = load_experiment(LOSSES[self.loss], WHOLE)
            model = train(experiment, [str(path)], self.out / "whole" / f"{self.loss}-{kind}")
            found[kind] = {name: measured(held, answer(held, model)) for name, held in self._held().items()}
        base = {name: measured(held, head.run(held, self.vectors, None)) for name, held in self._held().items()}
        pairs = {"base": base, **found}
        return {f"{new} - {old}": {name: tests(pairs[old][name], pairs[new][name]) for name in base}
                for old, new in (("base", "answer"), ("base", "query"), ("query", "answer"), ("answer", labels.KEY))}  # fmt: skip


WHOLE: Final = ("target=answer_nll", "teacher_temperature=1.0", "documents=5", "max_positives=4", "batch_size=16",
                "learning_rate=5e-5", "max_length=128", "stages=[{name: weak, epochs: 2}]", "bf16=true")  # fmt: skip


def _means(columns: measuring.Columns) -> dict[str, float]:
    return {name: float(column.mean()) for name, column in columns.items()}


def _chosen(experiment: Experiment) -> dict[str, float]:
    return {"learning_rate": experiment.learning_rate, "teacher_temperature": experiment.teacher_temperature}


def _results(columns: Mapping[tuple[str, str, str], Any], base: Mapping[str, measuring.Columns]) -> dict[str, Any]:
    """Of each place and loss: every kind less the untrained model, and answers' labels less the question's."""
    found: dict[str, Any] = {}
    for (where, loss, kind), each in columns.items():
        untrained = base[where.split(",")[0]]
        row = {"spread": each["spread"], "less base": tests(untrained, each["columns"])}
        if kind == "answer":
            row["less query"] = tests(columns[where, loss, "query"]["columns"], each["columns"])
        found.setdefault(where, {}).setdefault(loss, {})[kind] = row
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("label", "agree", "train", "answers", "whole"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="working folder")
    parser.add_argument("--cache", type=Path, required=True, help="judgment cache, a file")
    parser.add_argument("--queries-from", type=Path, help="cache with LiveQA-Med's `query` labels; else --cache")
    parser.add_argument("--loss", choices=tuple(LOSSES), default="kl + margin", help="of `whole`")
    arguments = parser.parse_args()
    step: Callable[[], Any] = getattr(Study(arguments), arguments.step)
    found = step()
    if found is not None:
        (arguments.out / f"{arguments.step}.json").write_text(json.dumps(found, indent=1, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
