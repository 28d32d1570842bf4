"""A judge trained on few of people's grades: adapters (LoRA) on a small model's query likelihood.

    python -m benchmarks.judge_student liveqa-med --work W
    python -m benchmarks.judge_student_table liveqa-med --work W --cache FILE --vectors FOLDER

128 graded pairs are drawn from the queries of one half of a collection; the adapted model scores the other half, and
on LiveQA-Med the reverse. The score is the judge's own, the gain in nats a token that a passage brings the query. The
loss is binary cross-entropy at each cut of the grades (proportional odds), whose cuts and slope are learnt too.

Adapters are in the upper third of the layers, so that what the lower two thirds make of each pair is computed once:
training and scoring cost a third. Scores are kept in --work, a fold at a time. Needs ../shared/data, or --data.
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
from torch.nn.utils.rnn import pad_sequence

from benchmarks.public import COLLECTIONS, halves, options
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.strategies.likelihood import question
from qrelay.llm.tokens import Tokens
from qrelay.llm.weights_folder import weights_folder
from qrelay.models.catalogue import resolve
from qrelay.types import Passage

BATCH: Final = 8
RANK: Final = 8
Key = tuple[str, str]
"""A query's id and a passage's; "" for the query alone."""


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
    """A causal model in two parts; of each question that was read its tokens and what the lower part makes of it."""

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForCausalLM

        found = resolve(name)
        folder = weights_folder(found.path, found.revision, "bfloat16")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).requires_grad_(False)
        self.tokens = Tokens.load(folder, 4096, "cut the passages")
        self.layers = self.model.model.layers
        self.split = 2 * len(self.layers) // 3
        self.asked: dict[Key, tuple[tuple[int, ...], int]] = {}
        """The ids of context and query, and how many of them, at the end, are the query's."""
        self.hidden: dict[Key, Tensor] = {}
        """[tokens, size]"""

    def read(self, pairs: Sequence[GradedPair]) -> None:
        """The pairs' questions, and each query alone."""
        for pair in pairs:
            passage = Passage(pair.passage_id, pair.passage_id, pair.title, pair.text)
            for key, shown in ((key_of(pair), passage), ((pair.query_id, ""), None)):
                of = question(pair.query, shown)
                query: Any = self.tokens.of_continuation(of.context, of.target)
                self.asked[key] = (query.ids, len(query.wanted))
        for done, keys in enumerate(self.batches(list(self.asked))):
            ids = pad_sequence([torch.tensor(self.asked[key][0]) for key in keys], batch_first=True)
            with torch.inference_mode():
                hidden = self._run(self.model.model.embed_tokens(ids), self.layers[: self.split])
            self.hidden |= {key: hidden[row, : len(self.asked[key][0])].clone() for row, key in enumerate(keys)}
            if done % 8 == 0:
                print(f"read {len(self.hidden)} of {len(self.asked)}, {time.process_time():.0f} s", flush=True)

    def batches(self, keys: Sequence[Key]) -> Iterator[list[Key]]:
        """Keys of like length together."""
        ordered = sorted(keys, key=lambda key: (len(self.asked[key][0]), key))
        for start in range(0, len(ordered), BATCH):
            yield ordered[start : start + BATCH]

    def nll(self, keys: Sequence[Key]) -> Tensor:
        """Mean negative log-likelihood [keys] of each question's query, nats a token."""
        rows, places, targets = list[int](), list[int](), list[int]()
        for row, key in enumerate(keys):
            ids, own = self.asked[key]
            rows += [row] * own
            places += range(len(ids) - own - 1, len(ids) - 1)
            targets += ids[-own:]
        at = torch.tensor(rows)
        hidden = self._run(
            pad_sequence([self.hidden[key] for key in keys], batch_first=True), self.layers[self.split :]
        )
        logits = self.model.lm_head(self.model.model.norm(hidden[at, torch.tensor(places)])).float()
        said = torch.log_softmax(logits, -1).gather(1, torch.tensor(targets)[:, None])[:, 0]
        return -torch.zeros(len(keys)).index_add(0, at, said) / torch.bincount(at, minlength=len(keys))

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


class Student:
    """One fold: adapters, slope and cuts."""

    def __init__(self, model: Likelihood, lowest: int) -> None:
        """lowest: of the grades."""
        self.model, self.lowest = model, lowest
        self.slope, self.cuts = nn.Parameter(torch.tensor(2.24)), nn.Parameter(torch.tensor([0.53, 0.79, 1.0]))

    def gains(self, keys: Sequence[Key]) -> Tensor:
        """[keys], nats a token."""
        queries = sorted({query for query, _ in keys})
        alone = dict(zip(queries, self.model.nll([(query, "") for query in queries]), strict=True))
        return torch.stack([alone[query] for query, _ in keys]) - self.model.nll(keys)

    def loss(self, pairs: Sequence[GradedPair]) -> Tensor:
        """Mean over pairs and cuts."""
        grades = torch.tensor([int(pair.grade or 0) - self.lowest for pair in pairs])
        logits = self.slope * (self.gains([key_of(pair) for pair in pairs])[:, None] - self.cuts)
        return functional.binary_cross_entropy_with_logits(logits, (grades[:, None] > torch.arange(3)).float())

    def train(self, pairs: Sequence[GradedPair], epochs: int, rate: float) -> None:
        """On these graded pairs."""
        torch.manual_seed(0)
        groups = [{"params": self.model.adapt(), "lr": rate}, {"params": [self.slope, self.cuts], "lr": 0.02}]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        order, steps = random.Random(0), epochs * -(-len(pairs) // BATCH)
        rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min(1, (n + 1) / 8) * (1 - n / steps))
        for epoch in range(epochs):
            losses, mixed = [], order.sample(list(pairs), len(pairs))
            for start in range(0, len(pairs), BATCH):
                loss = self.loss(mixed[start : start + BATCH])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                rates.step()
                losses.append(loss.item())
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.process_time():.0f} s", flush=True)

    def scores(self, pairs: Sequence[GradedPair]) -> dict[Key, float]:
        """The log-odds of each pair at the middle cut, so that folds are on one scale."""
        found: dict[Key, float] = {}
        with torch.inference_mode():
            for keys in self.model.batches([key_of(pair) for pair in pairs]):
                found |= zip(keys, (self.slope * (self.gains(keys) - self.cuts[1])).tolist(), strict=True)
        return found


def key_of(pair: GradedPair) -> Key:
    """The pair's name."""
    return pair.query_id, pair.passage_id


def drawn(rows: Sequence[int], number: int) -> list[int]:
    """So many of the rows, by chance; the more numbers, the more rows, the first the same."""
    return random.Random(0).sample(list(rows), len(rows))[:number]


def folds_of(name: str, pairs: Sequence[GradedPair], most: int) -> list[tuple[list[int], list[int]]]:
    """(rows to draw from, rows to score) of each fold: LiveQA-Med's halves both ways, else B to A. most: scored pairs
    of a query."""
    a, b = halves(pairs)
    folds = []
    for train, test in [(b, a), (a, b)] if name == "liveqa-med" else [(b, a)]:
        seen: dict[str, list[int]] = {}
        for n in drawn(test, len(test)):
            seen.setdefault(pairs[n].query_id, []).append(n)
        folds.append((train, sorted(n for rows in seen.values() for n in rows[:most])))
    return folds


def kept(work: Path, name: str) -> tuple[dict[str, dict[str, float]], Path]:
    """System -> row -> score: what was measured of a collection before, and where it is kept."""
    path = work / f"students-{name}.json"
    return (json.loads(path.read_text()) if path.exists() else {}), path


def run(chosen: argparse.Namespace) -> None:
    """The untrained model's scores and each fold's."""
    pairs = COLLECTIONS[chosen.collection].pairs(chosen.data / chosen.collection)
    folds = [(drawn(rows, chosen.grades), test) for rows, test in folds_of(chosen.collection, pairs, chosen.most)]
    chosen.work.mkdir(parents=True, exist_ok=True)
    said, path = kept(chosen.work, chosen.collection)
    model = Likelihood(chosen.model)
    model.read([pairs[n] for n in sorted({n for fold in folds for part in fold for n in part})])
    base = chosen.model.split("-instruct")[0]
    name = f"{base} {chosen.grades} grades, rate {chosen.rate}, {chosen.epochs} epochs, {chosen.most} a query"
    for system, epochs in ((f"{base} untrained", 0), (name, chosen.epochs)):
        own = said.setdefault(system, {})
        for rows, test in folds:
            if all(str(n) in own for n in test):
                continue
            print(f"{system}: {len(test)} pairs to score", flush=True)
            student = Student(model, min(pair.grade for pair in pairs if pair.grade is not None))
            if epochs:
                student.train([pairs[n] for n in rows], epochs, chosen.rate)
            scores = student.scores([pairs[n] for n in test])
            own |= {str(n): scores[key_of(pairs[n])] for n in test}
            path.write_text(json.dumps(said))


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--work", type=Path, required=True, help="Folder of scores.")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--grades", type=int, default=128)
    parser.add_argument("--most", type=int, default=1000, help="Pairs a query that are scored.")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
