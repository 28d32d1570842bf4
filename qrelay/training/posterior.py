"""The judge's label and the retriever's score as one soft target, by Bayes' rule over a query's labelled passages.

    prior(p)     proportional to exp(score(p) / temperature): what the retriever believes, as its loss reads scores
    posterior(p) proportional to P(relevant | p) * prior(p)

Both err, differently: a product of experts (Hinton 2002, https://doi.org/10.1162/089976602760128018) is right more
often than either where they do. The targets of a query then sum to 1, so at most one document is above a half. Such
labels use the student's own scores: they are for training and never for evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

LEAST: Final = 1e-3
"""P(relevant) below it counts as it: no judge is surer than that."""


def with_posterior(passages: Sequence[dict[str, Any]], system: str, temperature: float) -> list[dict[str, Any]]:
    """The passages of one line of an export of `labels` with the posterior in place of `p_relevant`; None where
    `system` gave no score."""
    logits = [_logit(passage, system, temperature) for passage in passages]
    known = [value for value in logits if value is not None]
    top = max(known, default=0.0)
    total = math.fsum(math.exp(value - top) for value in known)
    return [
        {**passage, "p_relevant": None if value is None else math.exp(value - top) / total}
        for passage, value in zip(passages, logits, strict=True)
    ]


def _logit(passage: dict[str, Any], system: str, temperature: float) -> float | None:
    score = passage["scores"].get(system)
    if score is None:
        return None
    return math.log(max(LEAST, float(passage["p_relevant"]))) + float(score) / temperature
