"""Do labels of utility train a better retriever than labels of relevance of the same pairs?

    python -m benchmarks.utility STEP --data FOLDER --out WORK --cache FILE

label       the pairs; hours; killed, it goes on
agree       the labels beside people's grades and the answer key
select      listwise utility, on a part
train       a retriever from each kind of label with each loss
likelihood  of the reference answers, given each retriever's first passage
answers     the same, and what a reader answers from it; hours; killed, it goes on
whole       whole models instead of `train`'s layers, by `qrelay train`
report      the tables of what was done

FOLDER holds medquad and liveqa-med in BEIR's layout. Labels are made by --model on one thread: how much likelier a
passage makes the reference answer (`answer`) and the question (`query`); `key` is what people or the answer key say.
`pairs.py` says why the reference is no candidate; `head.py` what is trained. What is chosen is chosen on one half of
MedQuAD's dev questions. Every step writes WORK/STEP.json. docs/judge.md has the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.public import COLLECTIONS
from benchmarks.relabel.plant import read as read_medquad
from benchmarks.utility import grid, head, labels, measuring
from benchmarks.utility.answering import Asked, answered
from benchmarks.utility.pairs import in_parts, medquad
from benchmarks.utility.report import tables
from qrelay.errors import InputError
from qrelay.formats.annotated_pairs import GradedPair, read_annotated_pairs, write_annotated_pairs
from qrelay.formats.beir import Run
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import auc, auc_within
from qrelay.training.evaluation.answering import answer
from qrelay.training.experiment import load_experiment
from qrelay.training.train import train

MODEL: Final = "qwen2.5-coder-0.5b-instruct"
PARTS: Final = 4
STEPS: Final = ("label", "agree", "select", "train", "likelihood", "answers", "whole", "report")
KINDS: Final = ("answer", "query", labels.KEY)
MEDQUAD, LIVEQA = "medquad", "liveqa-med"
SELECTED: Final = 12
"""Questions whose passages are judged as lists."""
RELEVANT: Final = {MEDQUAD: 1, LIVEQA: 3}


class Study:
    """One working folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.data: Path = arguments.data
        self.out: Path = arguments.out
        self.cache: Path = arguments.cache
        self.queries_from: Path = arguments.queries_from or arguments.cache
        self.model: str = arguments.model
        self.loss: str = arguments.loss
        self.questions: int | None = arguments.questions
        self.out.mkdir(parents=True, exist_ok=True)

    @cached_property
    def pairs(self) -> dict[str, list[GradedPair]]:
        """collection -> what is labelled."""
        folder = self.data / LIVEQA
        graded = COLLECTIONS[LIVEQA].pairs(folder, answers=folder / "answers.dev.jsonl")
        drawn = self.out / "medquad.tsv"
        if not drawn.exists():
            write_annotated_pairs(drawn, medquad(read_medquad(self.data / MEDQUAD, "train")), answers=True)
        return {MEDQUAD: read_annotated_pairs(drawn), LIVEQA: graded}

    @cached_property
    def places(self) -> grid.Places:
        """What is ranked, with every text's vector."""
        data = read_medquad(self.data / MEDQUAD, "dev")
        choosing, dev = measuring.medquad_dev(data, 0), measuring.medquad_dev(data, 1)
        liveqa = measuring.liveqa(self.pairs[LIVEQA])
        asked = [text for each in (choosing, dev, liveqa) for text in each.queries.values()]
        asked += [pair.query for each in self.pairs.values() for pair in each]
        texts = [*map(measuring.texts_of, self.pairs.values()), dev.texts, asked]
        return grid.Places(choosing, dev, liveqa, measuring.vectors(self.out / "vectors", texts))

    def recorded(self, name: str) -> Table:
        """The pairs of a collection that have both labels."""
        tables = {}
        for kind, path in (("answer", self.cache), ("query", self.queries_from if name == LIVEQA else self.cache)):
            tables[kind] = labels.kept(path, self.pairs[name], kind, self.model, RELEVANT[name])
        return measuring.together(tables, measuring.cosines(self.pairs[name], self.places.known))

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
        """Every pair, LiveQA-Med in parts; its `query` labels only where no other cache has them."""
        kinds = tuple(labels.STRATEGIES) if self.queries_from == self.cache else ("answer",)
        liveqa = in_parts(self.pairs[LIVEQA], PARTS)
        for asked, parts in ((tuple(labels.STRATEGIES), [self.pairs[MEDQUAD]]), (kinds, liveqa)):
            with labels.labellers(self.model, self.cache, asked) as panel:
                for part in parts:
                    labels.label(panel, part, lambda count: print(count, end=" ", flush=True))

    def agree(self) -> dict[str, Any]:
        """Labels beside people's grades and beside the answer key. Ends where a collection has too few labels."""
        found = {}
        for name in self.pairs:
            try:
                found[name] = measuring.agreement(self.recorded(name))
            except InputError as error:
                raise SystemExit(f"{name} has too few labels to compare ({error}): run `label` to its end") from error
        return found

    def select(self) -> dict[str, Any]:
        """What listwise judging is worth, on a part: LiveQA-Med's first questions, some passages of each. There is no
        AUC where what the labeller said could be read of one class of passages at most."""
        part = in_parts(self.pairs[LIVEQA], PARTS)[0]
        asked = sorted({pair.query_id for pair in part})[:SELECTED]
        some = [pair for pair in part if pair.query_id in asked]
        table = labels.selected(self.model, self.cache, some, lambda count: print(count, end=" ", flush=True))
        (kind,) = table.labels
        column = table.column(kind)
        rows = np.flatnonzero(np.isfinite(column))
        relevant = np.array([(pair.grade or 0) >= RELEVANT[LIVEQA] for pair in some])[rows]
        found = {"questions": len(asked), "pairs": len(some), "labelled": len(rows), "relevant": int(relevant.sum())}
        if len(set(relevant.tolist())) < 2:
            return {**found, "auc": None, "within": None, "questions within": 0}
        within, questions = auc_within(relevant, column[rows], table.queries[rows])
        return {**found, "auc": auc(relevant, column[rows]), "within": within, "questions within": questions}

    def train(self) -> dict[str, Any]:
        """Every kind of label with every loss."""
        of_medquad, of_liveqa = self.files(MEDQUAD), self.files(LIVEQA)
        runs: dict[tuple[str, str, str], list[Run]] = {}
        settings = {}
        for loss, kind in product(grid.LOSSES, KINDS):
            mine = head.read(of_medquad[kind]), head.read(of_liveqa[kind])
            experiment, found = grid.ranked(self.places, loss, *mine)
            runs |= {(where, loss, kind): each for where, each in found.items()}
            settings[f"{kind}, {loss}"] = [experiment.learning_rate, experiment.teacher_temperature]
            print(kind, loss, *settings[f"{kind}, {loss}"], flush=True)
        kept = {f"{kind}, {loss}, {where}": each for (where, loss, kind), each in runs.items() if where != grid.DEV}
        (self.out / "runs.json").write_text(json.dumps({"base": [self.places.base()[grid.CROSSED]], **kept}))
        return {"settings": settings, "results": grid.results(self.places, runs)}

    def likelihood(self) -> dict[str, Any]:
        """How likely each system's first passage makes the references, for a model that did not label."""
        return self._answered(self.loss, reading=False)

    def answers(self) -> dict[str, Any]:
        """The same, and the reader's answers."""
        return self._answered(self.loss, reading=True)

    def _answered(self, loss: str, *, reading: bool) -> dict[str, Any]:
        runs = json.loads((self.out / "runs.json").read_text())
        some = {name: each for name, each in runs.items() if name == "base" or f", {loss}, " in name}
        asked = Asked(self.pairs[LIVEQA], self.places.liveqa, self.out, self.cache, self.questions)
        return answered(asked, some, reading=reading)

    def whole(self) -> dict[str, Any]:
        """Whole models on MedQuAD's labels, by `qrelay train`, with the loss of --loss."""
        runs = {}
        for kind, path in self.files(MEDQUAD).items():
            experiment = load_experiment(grid.LOSSES[self.loss], WHOLE)
            model = train(experiment, [str(path)], self.out / "whole" / f"{self.loss}-{kind}")
            for where in (grid.DEV, grid.TRANSFER):
                runs[where, self.loss, kind] = [answer(self.places.of(where), model)]
        return grid.results(self.places, runs)

    def report(self) -> None:
        """Prints the tables."""
        found = {path.stem: json.loads(path.read_text()) for path in sorted(self.out.glob("*.json"))}
        print("\n\n".join(tables(found)))


WHOLE: Final = ("target=answer_nll", "teacher_temperature=1.0", "documents=5", "max_positives=4", "batch_size=16",
                "learning_rate=5e-5", "max_length=128", "stages=[{name: weak, epochs: 2}]", "bf16=true")  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """See the module. words: of the command line, or these."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="working folder")
    parser.add_argument("--cache", type=Path, required=True, help="judgment cache, a file")
    parser.add_argument("--model", default=MODEL, help="the labeller")
    parser.add_argument("--queries-from", type=Path, help="cache with LiveQA-Med's `query` labels; else --cache")
    parser.add_argument(
        "--loss", choices=tuple(grid.LOSSES), default="kl", help="of `whole`, `likelihood` and `answers`"
    )
    parser.add_argument("--questions", type=int, help="of `likelihood` and `answers`, the first so many")
    arguments = parser.parse_args(words)
    step: Callable[[], Any] = getattr(Study(arguments), arguments.step)
    found = step()
    if found is not None:
        (arguments.out / f"{arguments.step}.json").write_text(json.dumps(found, indent=1, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
