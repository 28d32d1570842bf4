"""Strategies: how to ask for a judgment. Adding one: a module, and a line in `make_strategy`'s table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.judging.strategies.base import Strategy
from qrelay.judging.strategies.binary import binary
from qrelay.judging.strategies.chat import Shot
from qrelay.judging.strategies.contrastive import ContrastiveLikelihood
from qrelay.judging.strategies.graded import graded
from qrelay.judging.strategies.query_likelihood import QueryLikelihood
from qrelay.judging.strategies.utility import ListUtility

_STRATEGIES: dict[str, Callable[[str, float, Sequence[Shot]], Strategy]] = {
    "binary": lambda _, min_mass, shots: binary(min_mass, shots),
    "graded": graded,
    "query_likelihood": lambda *_: QueryLikelihood(),
    "contrastive_likelihood": lambda *_: ContrastiveLikelihood(),
    "answer_nll": lambda *_: AnswerNll(),
    "utility": lambda *_: ListUtility(),
}


def make_strategy(name: str, scale: str, *, min_mass: float = 0.05, shots: Sequence[Shot] = ()) -> Strategy:
    """The strategy `name` on `scale` ("0-3", "1-4": graded only). min_mass: see `grading.read_grade`; shots: worked
    examples for the strategies that ask for a grade."""
    return _STRATEGIES[name](scale, min_mass, shots)
