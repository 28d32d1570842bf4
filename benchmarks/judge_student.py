"""A judge trained on few of people's grades: adapters (LoRA) on a small model's query likelihood.

    python -m benchmarks.judge_student liveqa-med --work W
    python -m benchmarks.judge_student_table liveqa-med --work W --cache FILE --vectors FOLDER

128 graded pairs are drawn from the queries of one half of a collection; the adapted model scores the other half, and
on LiveQA-Med the reverse. The score is the judge's own, the gain in nats a token that a passage brings the query. The
loss is binary cross-entropy at each cut of the grades (proportional odds), whose cuts and slope are learnt too.

Adapters are in the upper third of the layers, so that what the lower two thirds make of each pair is computed once
and kept in --work: training and scoring cost a third. The command goes on where it was stopped. Needs ../shared/data,
or --data.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.judge_table import COLLECTIONS
from qrelay.formats.annotated_pairs import GradedPair, read_beir
from qrelay.judging.strategies.likelihood import question
from qrelay.llm.tokens import Tokens
from qrelay.llm.weights_folder import weights_folder
from qrelay.models.catalogue import resolve
from qrelay.types import Passage

BATCH: Final = 8
RANK: Final = 8
CHUNK: Final = 64
"""Pairs whose hidden states are one file."""


class Lora(nn.Module):
    """A frozen linear layer and its adapter of low rank (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(RANK, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as of the layer."""
        low = functional.linear(functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))
        adapted: Tensor = self.base(x) + 2 * low
        return adapted


class Likelihood:
    """A causal model in two parts, and the tokens of its judge's questions."""

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForCausalLM

        found = resolve(name)
        folder = weights_folder(found.path, found.revision, "bfloat16")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).requires_grad_(False)
        self.tokens = Tokens.load(folder, 4096, "cut the passages")
        self.layers = self.model.model.layers
        self.split = 2 * len(self.layers) // 3

    def lower(self, ids: Tensor) -> Tensor:
        """Hidden states [rows, width, size] below the adapters; ids [rows, width], padded on the right."""
        return self._run(self.model.model.embed_tokens(ids), self.layers[: self.split])

    def upper(self, hidden: Tensor, rows: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities [n] of the tokens `targets` that follow the places [n] in the rows [n]."""
        hidden = self._run(hidden, self.layers[self.split :])[rows, places]
        logits = self.model.lm_head(self.model.model.norm(hidden)).float()
        return torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]

    def _run(self, hidden: Tensor, layers: Sequence[nn.Module]) -> Tensor:
        positions = torch.arange(hidden.shape[1])[None]
        turned = self.model.model.rotary_emb(hidden, positions)
        for layer in layers:
            hidden = layer(hidden, attention_mask=None, position_ids=positions, position_embeddings=turned)
        return hidden

    def adapt(self) -> list[nn.Parameter]:
        """Fresh adapters at every linear layer of the upper part; their weights."""
        for layer in self.layers[self.split :]:
            for part in (layer.self_attn, layer.mlp):
                for name, child in list(part.named_children()):
                    if isinstance(child, Lora | nn.Linear):
                        base = child.base if isinstance(child, Lora) else child
                        setattr(part, name, Lora(base))
        return [values for values in self.model.parameters() if values.requires_grad]


Question = tuple[tuple[int, ...], int]
"""The ids of context and query, and how many of them, at the end, are the query's."""


def pairs_of(name: str, data: Path) -> list[GradedPair]:
    """The collection's graded pairs, in the order of the judges' table."""
    public = COLLECTIONS[name]
    return read_beir(data / name, data / name / public.queries, data / name / public.qrels)


def halves(pairs: Sequence[GradedPair]) -> tuple[list[int], list[int]]:
    """Rows of half A, the queries at even places of the sorted ids, and of half B."""
    even = set(sorted({pair.query_id for pair in pairs})[::2])
    rows = range(len(pairs))
    return [n for n in rows if pairs[n].query_id in even], [n for n in rows if pairs[n].query_id not in even]


def drawn(pairs: Sequence[GradedPair], rows: Sequence[int], number: int) -> list[int]:
    """So many of the rows, by chance; the more numbers, the more rows, the first the same."""
    return random.Random(0).sample(list(rows), len(rows))[:number]


def folds_of(name: str, pairs: Sequence[GradedPair], grades: int, most: int) -> list[tuple[list[int], list[int]]]:
    """(rows to train on, rows to score) of each fold: LiveQA-Med's halves both ways, else B to A. most: pairs a query
    that are scored."""
    a, b = halves(pairs)
    kept = []
    for train, test in [(b, a), (a, b)] if name == "liveqa-med" else [(b, a)]:
        seen: dict[str, int] = {}
        few = []
        for n in drawn(pairs, test, len(test)):
            seen[pairs[n].query_id] = seen.get(pairs[n].query_id, 0) + 1
            few += [n] * (seen[pairs[n].query_id] <= most)
        kept.append((drawn(pairs, train, grades), sorted(few)))
    return kept


def asked(model: Likelihood, pairs: Sequence[GradedPair], rows: Sequence[int]) -> dict[int, Question]:
    """Row -> its question; under -1 - row the query alone, of the first row of each query."""
    found: dict[int, Question] = {}
    alone: set[str] = set()
    for n in rows:
        pair = pairs[n]
        for key, passage in ((n, Passage(pair.passage_id, pair.passage_id, pair.title, pair.text)), (-1 - n, None)):
            if passage is None and pair.query_id in alone:
                continue
            of = question(pair.query, passage)
            query: Any = model.tokens.of_continuation(of.context, of.target)
            found[key] = (query.ids, len(query.wanted))
        alone.add(pair.query_id)
    return found


def states(model: Likelihood, questions: dict[int, Question], folder: Path) -> dict[int, Tensor]:
    """The hidden states [tokens, size] of each question, computed where the folder lacks them."""
    known: dict[int, Tensor] = {}
    for path in sorted(folder.glob("*.pt")):
        known |= torch.load(path, weights_only=True)
    lacking = sorted(questions.keys() - known.keys(), key=lambda key: (len(questions[key][0]), key))
    started, done = time.process_time(), 0
    for start in range(0, len(lacking), CHUNK):
        part = lacking[start : start + CHUNK]
        fresh: dict[int, Tensor] = {}
        for first in range(0, len(part), BATCH):
            keys = part[first : first + BATCH]
            ids = nn.utils.rnn.pad_sequence([torch.tensor(questions[key][0]) for key in keys], batch_first=True)
            with torch.inference_mode():
                hidden = model.lower(ids)
            fresh |= {key: hidden[row, : len(questions[key][0])].clone() for row, key in enumerate(keys)}
            done += sum(len(questions[key][0]) for key in keys)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(fresh, folder / f"{len(list(folder.glob('*.pt'))):05}.pt")
        known |= fresh
        spent = time.process_time() - started
        print(f"states {start + len(part)}/{len(lacking)}: {done} tokens, {spent:.0f} s of processor", flush=True)
    return {key: known[key] for key in questions}


def nll(model: Likelihood, hidden: dict[int, Tensor], questions: dict[int, Question], keys: Sequence[int]) -> Tensor:
    """Mean negative log-likelihood [keys] of each question's query, nats a token."""
    rows, places, targets = list[int](), list[int](), list[int]()
    for row, key in enumerate(keys):
        ids, own = questions[key]
        rows += [row] * own
        places += range(len(ids) - own - 1, len(ids) - 1)
        targets += ids[-own:]
    padded = nn.utils.rnn.pad_sequence([hidden[key] for key in keys], batch_first=True)
    at = torch.tensor(rows)
    said = model.upper(padded, at, torch.tensor(places), torch.tensor(targets))
    counts = torch.bincount(at, minlength=len(keys))
    return -torch.zeros(len(keys)).index_add(0, at, said) / counts


def batches(keys: Sequence[int], questions: dict[int, Question]) -> Iterator[list[int]]:
    """Keys of like length together."""
    ordered = sorted(keys, key=lambda key: len(questions[key][0]))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


class Student:
    """One fold: adapters, slope and cuts."""

    def __init__(self, model: Likelihood, pairs: Sequence[GradedPair], questions: Any, hidden: Any) -> None:
        self.model, self.pairs, self.questions, self.hidden = model, pairs, questions, hidden
        self.alone = {pairs[-1 - key].query_id: key for key in questions if key < 0}
        self.lowest = min(pair.grade for pair in pairs if pair.grade is not None)
        self.slope, self.cuts = nn.Parameter(torch.tensor(2.24)), nn.Parameter(torch.tensor([0.53, 0.79, 1.0]))

    def gains(self, rows: Sequence[int]) -> Tensor:
        """[rows], nats a token."""
        queries = sorted({self.pairs[n].query_id for n in rows})
        without = nll(self.model, self.hidden, self.questions, [self.alone[each] for each in queries])
        place = {each: number for number, each in enumerate(queries)}
        told = without[[place[self.pairs[n].query_id] for n in rows]]
        return told - nll(self.model, self.hidden, self.questions, rows)

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Mean over rows and cuts."""
        grades = torch.tensor([int(self.pairs[n].grade or 0) - self.lowest for n in rows])
        logits = self.slope * (self.gains(rows)[:, None] - self.cuts)
        return functional.binary_cross_entropy_with_logits(logits, (grades[:, None] > torch.arange(3)).float())

    def train(self, rows: Sequence[int], epochs: int, rate: float) -> None:
        """On these graded rows."""
        torch.manual_seed(0)
        groups = [{"params": self.model.adapt(), "lr": rate}, {"params": [self.slope, self.cuts], "lr": 0.02}]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        order, steps = random.Random(0), epochs * -(-len(rows) // BATCH)
        rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min(1, (n + 1) / 8) * (1 - n / steps))
        for epoch in range(epochs):
            losses, mixed = [], order.sample(list(rows), len(rows))
            for start in range(0, len(rows), BATCH):
                loss = self.loss(mixed[start : start + BATCH])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                rates.step()
                losses.append(loss.item())
            fitted = f"slope {self.slope.item():.2f}, cuts {self.cuts.detach().numpy().round(2)}"
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {fitted}, {time.process_time():.0f} s", flush=True)

    def scores(self, rows: Sequence[int]) -> dict[int, float]:
        """Row -> the gain."""
        found: dict[int, float] = {}
        with torch.inference_mode():
            for part in batches(rows, self.questions):
                found |= dict(zip(part, self.gains(part).tolist(), strict=True))
        return found


def run(options: argparse.Namespace, pairs: Sequence[GradedPair], said: dict[str, Any], path: Path) -> None:
    """The untrained model's scores and each fold's, into `said`, which is kept at `path`."""
    model = Likelihood(options.model)
    folds = folds_of(options.collection, pairs, options.grades, options.most)
    wanted = sorted({n for fold in folds for part in fold for n in part})
    questions = asked(model, pairs, wanted)
    hidden = states(model, questions, options.work / f"states-{options.collection}-{options.model}")
    known = said.setdefault("untrained", {})
    lacking = [n for n in wanted if str(n) not in known]
    known |= {str(n): gain for n, gain in Student(model, pairs, questions, hidden).scores(lacking).items()}
    path.write_text(json.dumps(said))
    name = f"{options.grades} grades, rate {options.rate}, {options.epochs} epochs, {options.most} a query"
    done = said.setdefault(name, {})
    for number, (rows, test) in enumerate(folds):
        if str(number) not in done:
            print(f"{name}: fold {number}, {len(test)} pairs to score", flush=True)
            student = Student(model, pairs, questions, hidden)
            student.train(rows, options.epochs, options.rate)
            scores = {str(n): gain for n, gain in student.scores(test).items()}
            done[str(number)] = {"slope": student.slope.item(), "cuts": student.cuts.tolist(), "scores": scores}
            path.write_text(json.dumps(said))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True, help="Folder of hidden states and scores.")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--grades", type=int, default=128)
    parser.add_argument("--most", type=int, default=1000, help="Pairs a query that are scored.")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = pairs_of(options.collection, options.data)
    path = options.work / f"student-{options.collection}-{options.model}.json"
    run(options, pairs, json.loads(path.read_text()) if path.exists() else {}, path)


if __name__ == "__main__":
    main()
