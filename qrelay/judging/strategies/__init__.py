"""Strategies: how to ask for a judgment. A way of asking is a module and a line in `_STRATEGIES`; a prompt to be
answered by a grade is a rubric, a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.judging.strategies.base import Strategy
from qrelay.judging.strategies.chat import ChatGrade, Shot
from qrelay.judging.strategies.confirmed import ConfirmedLikelihood
from qrelay.judging.strategies.consensus import Consensus
from qrelay.judging.strategies.contrastive import ContrastiveLikelihood
from qrelay.judging.strategies.pair_score import PairScores
from qrelay.judging.strategies.query_likelihood import QueryLikelihood
from qrelay.judging.strategies.rubric import Rubric, load_rubric
from qrelay.judging.strategies.utility import ListUtility

_STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "query_likelihood": QueryLikelihood,
    "contrastive_likelihood": ContrastiveLikelihood,
    "answer_nll": AnswerNll,
    "pair_score": PairScores,
    "consensus": Consensus,
}


def make_strategy(
    name: str, scale: str, *, min_mass: float = 0.05, shots: Sequence[Shot] = (), rubric: str = ""
) -> Strategy:
    """The strategy `name` on `scale` ("0-3", "1-4": graded only); `rubric`, a shipped name or a file, in its place.
    min_mass: see `grading.read_grade`; shots: worked examples for the strategies that ask for a grade.

    Raises:
        ConfigError: a rubric that cannot be used.
    """
    if not rubric and name == "confirmed_likelihood":
        return ConfirmedLikelihood(min_mass=min_mass)
    if not rubric and name in _STRATEGIES:
        return _STRATEGIES[name]()
    found = load_rubric(rubric or (f"graded-{scale}" if name == "graded" else name))
    if isinstance(found, Rubric):
        return ChatGrade(found, min_mass=min_mass, shots=shots)
    return ListUtility(rubric=found)
