"""A judge trained without people: a cross-encoder on questions that a model wrote of the collection's own passages.

    python -m benchmarks.judge_generated liveqa-med --passages 128 --work W --vectors FOLDER --cache FILE
    python -m benchmarks.judge_student_table liveqa-med --work W --cache FILE --vectors FOLDER

After InPars (Bonifacio et al. 2022, https://arxiv.org/abs/2202.05144) and GPL (Wang et al. 2022,
https://arxiv.org/abs/2112.07577). The 0.5B writes a question of each drawn passage as `qrelay queries generate` does;
a question stays where all-mpnet-base-v2 brings its passage back among the first three. Beside its passage stand four
others that all-MiniLM-L6-v2 ranks high for it. Each pair's target is P(relevant) by an ensemble, the 0.5B's
likelihood and mpnet's cosine, whose map is fitted on the other collection's grades. A cross-encoder of MiniLM's body
is trained on these as `qrelay train` does. Questions are kept in --work, labels in the judgment cache: the command
goes on where it was stopped. More --passages begin with those of fewer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Callable, Sequence
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.judge_student import folds_of, kept
from benchmarks.judge_student_table import DENSE_TOO, table
from benchmarks.public import COLLECTIONS, halves, options
from benchmarks.tables import JUDGES, MINILM, MPNET, Kept
from benchmarks.utility import labels
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.engines import make_backend
from qrelay.judging.qualification.stages import StageOptions, score_pairs
from qrelay.judging.querygen.generate import Generator
from qrelay.judging.querygen.journal import KEPT, Journal
from qrelay.judging.querygen.prompt import prompt_hash
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.exchange import GENERATION
from qrelay.stats.calibration import Logistic
from qrelay.text import passage_text
from qrelay.training.experiment import load_experiment
from qrelay.training.train import train
from qrelay.types import DENSE, Passage

WRITER: Final = JUDGES["0.5B"]
NEGATIVES: Final = 4
BACK: Final = 3
"""A question must bring its passage back among so many."""
BATCH: Final = 8
TRAINED: Final = ("model=all-MiniLM-L6-v2", "every_label=true", "need_positive=false", "max_length=200", "bf16=true")


def pool_of(name: str, pairs: Sequence[GradedPair]) -> list[Passage]:
    """The different passages of the collection (LLMJudge: of half A), in an order drawn by chance."""
    rows = range(len(pairs)) if name == "liveqa-med" else halves(pairs)[0]
    every = (Passage(pairs[n].passage_id, pairs[n].passage_id, pairs[n].title, pairs[n].text) for n in rows)
    once = {text_of(each): each for each in every}
    return [once[text] for text in random.Random(0).sample(sorted(once), len(once))]


def text_of(passage: Passage) -> str:
    """As models read it."""
    return passage_text(passage.title, passage.text)


class Near:
    """Cosines of questions with a pool of passages, by one embedder; a `RoundTrip` of `qrelay queries generate`."""

    def __init__(self, embedder: Kept, passages: Sequence[Passage]) -> None:
        self._embedder, self._places = embedder, {each.doc_id: n for n, each in enumerate(passages)}
        self._vectors = embedder.encode([text_of(each) for each in passages], "document")

    def cosines(self, questions: Sequence[str]) -> Any:
        """[questions, passages]"""
        return self._embedder.encode(list(questions), "query") @ self._vectors.T

    async def ranks(self, questions: Sequence[str], doc_ids: Sequence[str]) -> list[int]:
        """See the protocol."""
        own = [self._places[doc_id] for doc_id in doc_ids]
        found = [int((row > row[at] + 1e-6).sum()) + 1 for row, at in zip(self.cosines(questions), own, strict=True)]
        return [rank if rank <= BACK else 0 for rank in found]


def written(passages: Sequence[Passage], near: Near, path: Path) -> dict[str, str]:
    """Passage id -> its question, of those that are of use."""
    backend = make_backend(JudgeSettings(backend="llamacpp", model=WRITER), needs=frozenset({GENERATION}))
    with Journal(path, {"model": WRITER, "prompt": prompt_hash()}, resume=True) as journal:

        def told() -> None:
            print(f"{len(journal.outcomes)} passages, {len(journal.of(KEPT))} questions", flush=True)

        try:
            writer = Generator(backend, near)
            asyncio.run(writer.run(passages, journal, len(passages), batch=BATCH, progress=told))
        finally:
            backend.close()
        asked = {each.passage_id: each.question for each in journal.of(KEPT)}
    return {each.passage_id: asked[each.passage_id] for each in passages if each.passage_id in asked}


def pairs_of(questions: dict[str, str], passages: Sequence[Passage], near: Near) -> list[GradedPair]:
    """Each question with its passage and hard negatives; its id is its passage's."""
    found = []
    places = {each.passage_id: n for n, each in enumerate(passages)}
    for (own, text), row in zip(questions.items(), near.cosines(list(questions.values())), strict=True):
        others = [n for n in np.argsort(-row).tolist() if n != places[own]]
        chosen = [passages[n] for n in (places[own], *others[:NEGATIVES])]
        found += [GradedPair(own, each.passage_id, None, text, each.title, each.text) for each in chosen]
    return found


def targets(pairs: Sequence[GradedPair], load: Callable[[str], Kept], chosen: argparse.Namespace) -> list[float]:
    """P(relevant) of each pair, by a map that is fitted on the other collection's grades."""
    known = table("llmjudge-dl23" if chosen.collection == "liveqa-med" else "liveqa-med", chosen)
    fitted = Logistic.fit(np.column_stack([known.column("0.5B"), known.column(DENSE_TOO)]), known.relevant)
    with labels.labellers(WRITER, Path(chosen.cache), ("query",)) as panel:
        labels.label(panel, pairs)
    gains = labels.kept(chosen.cache, pairs, "query", WRITER).column("query")
    cosines = score_pairs(pairs, StageOptions((MPNET,), load=load), print)[DENSE]
    return [float(p) for p in fitted.predict(np.column_stack([gains, cosines]))]


def write(path: Path, pairs: Sequence[GradedPair], p_relevant: Sequence[float]) -> None:
    """The pairs as an export of labels."""
    rows: dict[str, dict[str, Any]] = {}
    for pair, p in zip(pairs, p_relevant, strict=True):
        row = rows.setdefault(pair.query_id, {"query_id": pair.query_id, "query": pair.query, "passages": []})
        role = "positive" if pair.passage_id == pair.query_id else "negative"
        row["passages"].append({"passage_id": pair.passage_id, "title": pair.title, "text": pair.text,
                                "p_relevant": p, "role": role})  # fmt: skip
    labels.write(path, list(rows.values()))


def run(chosen: argparse.Namespace) -> None:
    """All steps."""
    from sentence_transformers import CrossEncoder

    graded = COLLECTIONS[chosen.collection].pairs(chosen.data / chosen.collection)
    load = once(partial(Kept, folder=chosen.vectors, engine="openvino"))
    whole = pool_of(chosen.collection, graded)
    passages = whole[: chosen.passages]
    chosen.work.mkdir(parents=True, exist_ok=True)
    questions = written(passages, Near(load(MPNET), whole), chosen.work / f"questions-{chosen.collection}.jsonl")
    pairs = pairs_of(questions, passages, Near(load(MINILM), passages))
    said, path = kept(chosen.work, chosen.collection)
    name = f"generated, {len(questions)} questions, rate {chosen.rate}, {chosen.epochs} epochs"
    folder = chosen.work / f"{chosen.collection}-{len(questions)}-{chosen.rate}-{chosen.epochs}"
    folder.mkdir(exist_ok=True)
    write(folder / "labels.jsonl", pairs, targets(pairs, load, chosen))
    stages = f"stages=[{{name: weak, epochs: {chosen.epochs}}}]"
    experiment = load_experiment("cross_encoder", [*TRAINED, f"learning_rate={chosen.rate}", stages])
    model = CrossEncoder(str(train(experiment, [str(folder / "labels.jsonl")], folder)), device="cpu")
    test = sorted({n for _, part in folds_of(chosen.collection, graded, chosen.most) for n in part})
    asked = [(graded[n].query, passage_text(graded[n].title, graded[n].text)) for n in test]
    scores = model.predict(asked, activation_fn=nn.Identity(), show_progress_bar=False).tolist()
    said[name] = dict(zip(map(str, test), scores, strict=True))
    path.write_text(json.dumps(said))


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=128)
    parser.add_argument("--most", type=int, default=1000, help="Pairs a query that are scored.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-4)
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
