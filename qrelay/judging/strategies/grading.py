"""From a reply to a grade: softmax over the grade tokens, or the strict reading of a text-only reply.

Probabilities are the log-probabilities of every spelling of a grade ("YES", "Yes", " yes"), exponentiated,
summed per grade and renormalised: a softmax restricted to the grades (as in UMBRELA's and MonoT5's use of
answer tokens). Where the grades together hold less than `min_mass` of the distribution, the model was about
to say something else, and the reply is unparseable rather than a guess. Where a list is too short to hold every
grade, the label is the least certain that agrees with what was shown, see `_with_unseen`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from qrelay.llm.exchange import TokenLogprobs
from qrelay.llm.replies import BLANKS as _SPACE_MARKERS
from qrelay.scales import Scale
from qrelay.types import Graded, Missing, Utility


def read_grade(reply: TokenLogprobs, scale: Scale, *, min_mass: float) -> Graded | Missing:
    """The grade in `reply`; `min_mass` (0 to 1) is the least total probability of all grade tokens."""
    if not reply.tokens:
        return grade_said(reply.text, scale)
    masses = grade_masses(reply.tokens, scale)
    total = math.fsum(masses)
    if not total >= max(min_mass, 1e-9):  # also refuses NaN
        return Missing(
            "unparseable",
            f"the grades {'/'.join(labels(scale))} hold {total:.3f} of the first token's probability, below "
            f"judge.min_grade_mass {min_mass}; the model's own first token is {reply.tokens[0][0][:20]!r}",
        )
    masses = _with_unseen(masses, reply, scale)
    total = math.fsum(masses)
    return graded(tuple(mass / total for mass in masses), scale)


def _with_unseen(masses: list[float], reply: TokenLogprobs, scale: Scale) -> list[float]:
    """The masses with what the list does not show given to grades that it does not show: those of the side, relevant
    or not, that has less, where it has any. None of these can be likelier than the last token that is shown."""
    absent = [n for n, mass in enumerate(masses) if not mass]
    if not absent or not reply.unseen:
        return masses
    cut = scale.relevant_grade - scale.min_grade
    relevant_has_less = math.fsum(masses[cut:]) < math.fsum(masses[:cut])
    takers = [n for n in absent if (n >= cut) == relevant_has_less] or absent
    each = min(reply.unseen / len(takers), math.exp(reply.tokens[-1][1]))
    return [each if n in takers else mass for n, mass in enumerate(masses)]


def grade_masses(tokens: Sequence[tuple[str, float]], scale: Scale) -> list[float]:
    """Probability of each grade, lowest first: all spellings of it summed; not normalised."""
    table = _spellings(scale)
    masses = [0.0] * len(scale.variants)
    for text, logprob in tokens:
        index = table.get(text.strip(_SPACE_MARKERS).casefold())
        if index is not None:
            masses[index] += math.exp(logprob)
    return masses


def graded(probabilities: tuple[float, ...], scale: Scale, utility: Utility | None = None) -> Graded:
    """The record of a distribution over the grades, lowest first, summing to 1. Ties go to the lower grade."""
    first = scale.min_grade
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return Graded(
        grade=first + best,
        min_grade=first,
        probabilities=probabilities,
        expected_relevance=math.fsum(p * (first + i) for i, p in enumerate(probabilities)),
        entropy=-math.fsum(p * math.log(p) for p in probabilities if p > 0.0) or 0.0,
        p_relevant=min(1.0, math.fsum(probabilities[scale.relevant_grade - first :])),
        utility=utility,
    )


def labels(scale: Scale) -> tuple[str, ...]:
    """The canonical replies in capitals, lowest grade first."""
    return tuple(variants[0].upper() for variants in scale.variants)


def grade_said(text: str, scale: Scale) -> Graded | Missing:
    """Only a reply that is a grade and nothing else counts: in "scale 0 to 3 … final score: 1" a search
    for digits would find 3, and a `<think>` prefix is no grade."""
    index = _spellings(scale).get(text.strip(_SPACE_MARKERS).casefold())
    if index is None:
        return Missing(
            "unparseable",
            f"the reply ({len(text)} characters) is not exactly one of {'/'.join(labels(scale))}",
        )
    return graded(tuple(1.0 if i == index else 0.0 for i in range(len(scale.variants))), scale)


@lru_cache
def _spellings(scale: Scale) -> dict[str, int]:
    return {spelling: index for index, variants in enumerate(scale.variants) for spelling in variants}
