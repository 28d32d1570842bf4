"""Loss terms by name: pure functions of a batch, each a mean over the queries that can be used.

With s the scores of one query, D+ its relevant documents, D- its negatives (its own and in-batch ones), t the soft
targets of its own documents, and T the temperature that scores are divided by:

infonce        mean over p in D+ of -log e^(s_p/T) / (e^(s_p/T) + sum over D- of e^(s_n/T))
               (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748)
triplet        mean over pairs of max(0, margin - s_p + s_n), own negatives
               (Schroff et al. 2015, https://arxiv.org/abs/1503.03832)
cosine         mean of (s - t)^2 over own documents: the similarity itself is fitted
kl             KL(softmax(t/Tt) || softmax(s/T)) over own documents; Tt the teacher's temperature
               (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)
mse            mean over own pairs of ((s_p - s_n) - (t_p - t_n))^2: MarginMSE
               (Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666); n: every own document that is not a
               positive; of a query without a positive, every pair with t_p > t_n
margin         mean over own pairs with t_i > t_j of max(0, margin - s_i + s_j), weighted by t_i - t_j
sum_marginal   -log of the sum over D+ of P(p), P = softmax over D+ and D-
joint          -sum over D+ of log P(p): -log of the product
rand1          -log P(p) of one p drawn from D+ a step, with the other positives left out of the softmax
lsepair        log(1 + sum over D+ and D- of e^((s_n - s_p)/T))

SOFT ones learn from targets alone and so from a query without a positive; to the others it gives nothing. The last
four are the multi-positive family; docs/training.md says when to take which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from qrelay.training.losses.batch import Batch

_OUT: Final = -1e9
"""The score of what does not count. Finite, for the gradient of a row of nothing but -inf is not a number."""


@dataclass(frozen=True)
class LossRules:
    """temperature: scores are divided by it. teacher_temperature: targets are. margin: in cosine, for triplet and
    margin."""

    temperature: float = 0.05
    teacher_temperature: float = 0.3
    margin: float = 0.1


Term = Callable[[Batch, LossRules], Tensor]


def infonce(batch: Batch, rules: LossRules) -> Tensor:
    """Each positive against all negatives; the other positives are left out."""
    return _contrast(batch, rules, batch.positive)


def triplet(batch: Batch, rules: LossRules) -> Tensor:
    """Every own pair of a positive and a negative."""
    return _mean(torch.relu(rules.margin - _differences(batch)), _pairs(batch))


def cosine(batch: Batch, rules: LossRules) -> Tensor:
    """The score as the target says."""
    return _mean_of_rows((batch.own_scores - batch.target) ** 2, batch.present)


def kl(batch: Batch, rules: LossRules) -> Tensor:
    """The student's distribution over its own documents as the teacher's."""
    student = (batch.own_scores / rules.temperature).masked_fill(~batch.present, _OUT).log_softmax(1)
    teacher = (batch.target / rules.teacher_temperature).masked_fill(~batch.present, _OUT).log_softmax(1)
    return _mean_of_rows_summed(torch.where(batch.present, teacher.exp() * (teacher - student), 0.0), batch.present)


def mse(batch: Batch, rules: LossRules) -> Tensor:
    """The student's margins as the teacher's."""
    wanted = _target_differences(batch)
    against = batch.positive.unsqueeze(2) & batch.not_positive.unsqueeze(1)
    without_positive = ~batch.positive.any(1)[:, None, None]
    return _mean((_differences(batch) - wanted) ** 2, against | (_ordered(batch, wanted) & without_positive))


def margin(batch: Batch, rules: LossRules) -> Tensor:
    """Own documents in the teacher's order; what it holds nearly equal weighs little."""
    wanted = _target_differences(batch)
    return _mean(wanted * torch.relu(rules.margin - _differences(batch)), _ordered(batch, wanted))


def sum_marginal(batch: Batch, rules: LossRules) -> Tensor:
    """The positives together against the rest."""
    positives = _positives(batch, rules).logsumexp(1)
    return _mean_of_rows_summed((_everything(batch, rules) - positives).unsqueeze(1), batch.positive)


def joint(batch: Batch, rules: LossRules) -> Tensor:
    """Every positive must win."""
    lost = _everything(batch, rules).unsqueeze(1) - batch.own_scores / rules.temperature
    return _mean_of_rows_summed(lost.masked_fill(~batch.positive, 0.0), batch.positive)


def rand1(batch: Batch, rules: LossRules) -> Tensor:
    """One positive a step; torch's generator draws it."""
    drawn = torch.rand_like(batch.relevance).masked_fill(~batch.positive, -1.0).argmax(1, keepdim=True)
    chosen = torch.zeros_like(batch.positive).scatter(1, drawn, True)
    return _contrast(batch, rules, chosen & batch.positive)


def lsepair(batch: Batch, rules: LossRules) -> Tensor:
    """Every pair at once, smoothly."""
    negatives = _negatives(batch, rules)
    positives = (-batch.own_scores / rules.temperature).masked_fill(~batch.positive, _OUT).logsumexp(1)
    return _mean_of_rows_summed(torch.nn.functional.softplus(negatives + positives).unsqueeze(1), batch.positive)


SOFT: Final = ("cosine", "kl", "mse", "margin")
"""Terms that learn from soft targets, with or without a positive."""
TERMS: Final[Mapping[str, Term]] = {
    term.__name__: term for term in (infonce, triplet, cosine, kl, mse, margin, sum_marginal, joint, rand1, lsepair)
}


def _contrast(batch: Batch, rules: LossRules, chosen: Tensor) -> Tensor:
    """Each of the chosen own documents (B, N) against the query's negatives."""
    own = batch.own_scores / rules.temperature
    return _mean_of_rows(torch.logaddexp(own, _negatives(batch, rules).unsqueeze(1)) - own, chosen)


def _negatives(batch: Batch, rules: LossRules) -> Tensor:
    """(B,): log of the sum over D- of e^(s/T)."""
    return (batch.scores / rules.temperature).masked_fill(~batch.negative, _OUT).logsumexp(1)


def _positives(batch: Batch, rules: LossRules) -> Tensor:
    return (batch.own_scores / rules.temperature).masked_fill(~batch.positive, _OUT)


def _everything(batch: Batch, rules: LossRules) -> Tensor:
    """(B,): log of the softmax's denominator over D+ and D-."""
    return torch.logaddexp(_positives(batch, rules).logsumexp(1), _negatives(batch, rules))


def _differences(batch: Batch) -> Tensor:
    """(B, N, N): s_i - s_j of own documents."""
    return batch.own_scores.unsqueeze(2) - batch.own_scores.unsqueeze(1)


def _target_differences(batch: Batch) -> Tensor:
    return batch.target.unsqueeze(2) - batch.target.unsqueeze(1)


def _ordered(batch: Batch, wanted: Tensor) -> Tensor:
    """(B, N, N) bool: i and j are there, and the teacher puts i before j."""
    return batch.present.unsqueeze(2) & batch.present.unsqueeze(1) & (wanted > 0)


def _pairs(batch: Batch) -> Tensor:
    """(B, N, N) bool: i is a positive and j a negative."""
    return batch.positive.unsqueeze(2) & batch.own_negative.unsqueeze(1)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Over the chosen ones; 0, with a gradient of 0, where there are none."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def _mean_of_rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Over the chosen ones of each row, then over the rows that have any."""
    rows = torch.where(chosen, values, 0.0).sum(1) / chosen.sum(1).clamp(min=1)
    return rows.sum() / chosen.any(1).sum().clamp(min=1)


def _mean_of_rows_summed(values: Tensor, chosen: Tensor) -> Tensor:
    """Over the rows that have any chosen one, of the sums of their values."""
    usable = chosen.any(1)
    return torch.where(usable.unsqueeze(1), values, 0.0).sum() / usable.sum().clamp(min=1)
