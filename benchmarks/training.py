"""Training steps a second: our retrieval loss against the library's, on the same batches of one run.

    python -m benchmarks.training --data triples.jsonl [--model all-MiniLM-L6-v2] [--steps 8]

Rounds of the variants take turns, so that another process's load falls on all alike; each round's ratio is to the
library's round beside it. Printed: the median ratio, and steps/s of the best round.

library    MultipleNegativesRankingLoss, columns padded apart, texts tokenised each step
columns    RetrievalLoss (infonce) with the same columns and the same tokenising: what our loss itself costs
ours       RetrievalLoss as `qrelay train` runs it: texts sorted by length, tokenised once
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--data", multiple=True, required=True, help="Exports of format triples or labels.")
@click.option("--model", default="all-MiniLM-L6-v2", show_default=True, help="Catalogue name, or path:FOLDER.")
@click.option("--steps", default=4, show_default=True, help="Steps a round; the first one is not counted.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each variant.")
@click.option("--batch", default=16, show_default=True, help="Queries a step.")
@click.option("--documents", default=4, show_default=True, help="Documents a query.")
def main(data: tuple[str, ...], model: str, steps: int, rounds: int, batch: int, documents: int) -> None:
    """Prints steps/s and ratios."""
    overrides = [f"model={model}", f"batch_size={batch}", f"documents={documents}", "max_positives=1"]
    variants = _variants(data, overrides)
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, make in variants.items():
            found[name].append(_steps_a_second(*make(), steps=steps, batch=batch))
    for name, rates in found.items():
        ratio = statistics.median(rate / base for rate, base in zip(rates, found["library"], strict=True))
        click.echo(f"{name:<8} {max(rates):6.3f} steps/s, {ratio:.2f} of the library's")


def _variants(data: tuple[str, ...], overrides: list[str]) -> dict[str, Callable[[], tuple[Any, Any, Any, Any]]]:
    """name -> a fresh (model, loss, rows, preprocess)."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from qrelay.models.catalogue import resolve
    from qrelay.training.bi_encoder import BiEncoder
    from qrelay.training.data import expand, load_examples
    from qrelay.training.experiment import load_experiment
    from qrelay.training.losses import combined
    from qrelay.training.losses.batch import Batch
    from qrelay.training.stages import reading_of
    from qrelay.training.tokens import TokenCache

    experiment = load_experiment("infonce_only", overrides)
    kind = BiEncoder()
    folder: Path = resolve(experiment.model).path
    examples, _ = load_examples(expand(data), reading_of(experiment))
    rows = kind.dataset(examples, experiment)
    held = kind.load(experiment, folder)
    cache = TokenCache(held)

    class Columns(combined.RetrievalLoss):
        """Each column by itself."""

        def forward(self, sentence_features: Any, labels: Any) -> Any:
            queries, *documents = [self.model(each)["sentence_embedding"] for each in sentence_features]
            batch = Batch.of(queries, torch.stack(documents, 1), labels)
            return combined.weighted_terms(batch, self.weights, self.rules)

    ours = kind.loss(experiment, held)
    return {
        "library": lambda: (held, MultipleNegativesRankingLoss(held), rows, held.preprocess),
        "columns": lambda: (held, Columns(held, ours.weights, ours.rules), rows, held.preprocess),
        "ours": lambda: (held, ours, rows, cache),
    }


def _steps_a_second(model: Any, loss: Any, rows: Any, preprocess: Any, *, steps: int, batch: int) -> float:
    """Tokenise, forward, backward and update, without the first step."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    columns = [name for name in rows.column_names if name != "label"]
    model.train()
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()
        part = rows[[(step * batch + i) % len(rows) for i in range(batch)]]
        features = [
            {
                key: value.to(model.device) if hasattr(value, "to") else value
                for key, value in preprocess(part[name]).items()
            }
            for name in columns
        ]
        found = loss(features, torch.tensor(part["label"]).to(model.device))
        total = torch.stack(list(found.values())).sum() if isinstance(found, dict) else found
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()
    return steps / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
