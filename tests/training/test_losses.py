"""Every loss term: its value by hand, its gradient by finite differences, and that following it reduces it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qrelay.training.losses.batch import Batch
from qrelay.training.losses.terms import SOFT, TERMS, LossRules
from qrelay.training.rows import PADDING

RULES = LossRules(temperature=0.5, teacher_temperature=0.25, margin=0.3)
# Two queries with three documents each; the second has one document less. Scores as if embedded.
SCORES = [[0.9, 0.7, 0.2, 0.1, 0.4, 0.0], [0.3, 0.5, 0.1, 0.6, 0.8, 0.0]]
RELEVANCE = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
TARGET = [[0.9, 0.6, 0.1], [0.7, 0.2, 0.0]]
KEY = [[0.0, 1.0, 2.0], [3.0, 4.0, PADDING]]


def batch(scores: Tensor | None = None, **changed: list[list[float]]) -> Batch:
    fields = {"relevance": RELEVANCE, "target": TARGET, "key": KEY, **changed}
    tensors = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in fields.items()}
    return Batch(torch.tensor(SCORES, dtype=torch.float64) if scores is None else scores, **tensors)


def value(name: str, **changed: list[list[float]]) -> float:
    return TERMS[name](batch(**changed), RULES).item()


def e(score: float) -> float:
    return math.exp(score / RULES.temperature)


# What the first query's and the second query's negatives sum to: own and in-batch ones, padding left out.
FIRST = e(0.2) + e(0.1) + e(0.4)
SECOND = e(0.8) + e(0.3) + e(0.5) + e(0.1)


def test_infonce_sets_each_positive_against_the_negatives_alone() -> None:
    first = (-math.log(e(0.9) / (e(0.9) + FIRST)) - math.log(e(0.7) / (e(0.7) + FIRST))) / 2
    second = -math.log(e(0.6) / (e(0.6) + SECOND))
    assert value("infonce") == pytest.approx((first + second) / 2)


def test_triplet_is_the_mean_hinge_over_own_pairs() -> None:
    pairs = [max(0, 0.3 - 0.9 + 0.2), max(0, 0.3 - 0.7 + 0.2), max(0, 0.3 - 0.6 + 0.8)]
    assert value("triplet") == pytest.approx(sum(pairs) / 3)


def test_cosine_is_the_squared_distance_to_the_target() -> None:
    first = ((0.9 - 0.9) ** 2 + (0.7 - 0.6) ** 2 + (0.2 - 0.1) ** 2) / 3
    second = ((0.6 - 0.7) ** 2 + (0.8 - 0.2) ** 2) / 2
    assert value("cosine") == pytest.approx((first + second) / 2)


def test_kl_is_the_divergence_from_the_teachers_softmax_over_own_documents() -> None:
    def divergence(scores: list[float], targets: list[float]) -> float:
        student = [e(score) / sum(map(e, scores)) for score in scores]
        weights = [math.exp(target / RULES.teacher_temperature) for target in targets]
        return sum(w / sum(weights) * math.log(w / sum(weights) / s) for w, s in zip(weights, student, strict=True))

    both = divergence([0.9, 0.7, 0.2], TARGET[0]), divergence([0.6, 0.8], TARGET[1][:2])
    assert value("kl") == pytest.approx(sum(both) / 2)


def test_mse_fits_the_teachers_margins() -> None:
    errors = [(0.9 - 0.2) - (0.9 - 0.1), (0.7 - 0.2) - (0.6 - 0.1), (0.6 - 0.8) - (0.7 - 0.2)]
    assert value("mse") == pytest.approx(sum(error**2 for error in errors) / 3)


def test_margin_orders_own_documents_as_the_teacher_does() -> None:
    hinges = [  # every pair that the teacher orders, with how far apart it holds the two
        (0.3, max(0, 0.3 - 0.9 + 0.7)), (0.8, max(0, 0.3 - 0.9 + 0.2)), (0.5, max(0, 0.3 - 0.7 + 0.2)),
        (0.5, max(0, 0.3 - 0.6 + 0.8)),
    ]  # fmt: skip
    assert value("margin") == pytest.approx(sum(weight * hinge for weight, hinge in hinges) / 4)


def test_sum_marginal_takes_the_positives_together() -> None:
    first = -math.log((e(0.9) + e(0.7)) / (e(0.9) + e(0.7) + FIRST))
    assert value("sum_marginal") == pytest.approx((first - math.log(e(0.6) / (e(0.6) + SECOND))) / 2)


def test_joint_wants_every_positive() -> None:
    whole = e(0.9) + e(0.7) + FIRST
    first = -math.log(e(0.9) / whole) - math.log(e(0.7) / whole)
    assert value("joint") == pytest.approx((first - math.log(e(0.6) / (e(0.6) + SECOND))) / 2)


def test_rand1_takes_one_positive_a_step_and_each_in_its_turn() -> None:
    second = -math.log(e(0.6) / (e(0.6) + SECOND))
    possible = {round((-math.log(e(s) / (e(s) + FIRST)) + second) / 2, 9) for s in (0.9, 0.7)}
    torch.manual_seed(0)
    assert {round(value("rand1"), 9) for _ in range(50)} == possible


def test_lsepair_sums_over_every_pair() -> None:
    first = math.log(1 + sum(1 / e(p) for p in (0.9, 0.7)) * FIRST)
    second = math.log(1 + SECOND / e(0.6))
    assert value("lsepair") == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_gradients_agree_with_finite_differences(name: str) -> None:
    def loss(scores: Tensor) -> Tensor:
        torch.manual_seed(1)
        return TERMS[name](batch(scores), RULES)

    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (scores,))


@pytest.mark.parametrize("name", sorted(TERMS))
def test_following_a_term_reduces_it(name: str) -> None:
    torch.manual_seed(3)
    queries, documents = torch.randn(4, 8, requires_grad=True), torch.randn(4, 5, 8, requires_grad=True)
    labels = torch.cat([torch.tensor([[1.0, 1, 0, 0, 0]]).repeat(4, 1), torch.rand(4, 5).sort(descending=True).values,
                        torch.arange(20.0).view(4, 5)], 1)  # fmt: skip
    optimizer = torch.optim.Adam([queries, documents], lr=0.05)

    def step() -> float:
        torch.manual_seed(0)
        loss = TERMS[name](Batch.of(queries, documents, labels), RULES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    before = step()
    assert before > 0
    assert [step() for _ in range(150)][-1] < before * 0.5


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_batch_without_a_positive_costs_nothing_and_breaks_nothing(name: str) -> None:
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    nothing = Batch(scores, *(torch.full((2, 3), n, dtype=torch.float64) for n in (0.0, 0.0, PADDING)))
    loss = TERMS[name](nothing, RULES)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None and (scores.grad == 0).all()


@pytest.mark.parametrize("name", ["infonce", "sum_marginal", "joint", "rand1", "lsepair"])
def test_a_text_that_is_relevant_to_the_query_is_no_negative_wherever_it_comes_from(name: str) -> None:
    """The second query brings the text of the first one's positive: its score for the first query must not count."""
    twin = [[0.0, 1.0, 2.0], [3.0, 0.0, PADDING]]
    raised = torch.tensor(SCORES, dtype=torch.float64)
    raised[0, 4] += 0.5
    torch.manual_seed(0)
    before = TERMS[name](batch(key=twin), RULES)
    torch.manual_seed(0)
    assert TERMS[name](batch(raised, key=twin), RULES) == before
    torch.manual_seed(0)
    assert TERMS[name](batch(raised), RULES) > value(name)


def test_an_own_negative_with_the_text_of_a_positive_is_left_out() -> None:
    assert not batch(key=[[0.0, 1.0, 0.0], [3.0, 4.0, PADDING]]).own_negative[0].any()


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 9\)"):
        Batch.of(torch.zeros(2, 4), torch.zeros(2, 3, 4), torch.zeros(2, 6))


NEITHER = [[-1.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", sorted(TERMS))
def test_soft_terms_alone_learn_from_queries_without_a_positive(name: str) -> None:
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    labels = [torch.tensor(rows, dtype=torch.float64) for rows in (NEITHER, TARGET, KEY)]
    TERMS[name](Batch(scores, *labels), RULES).backward()
    assert scores.grad is not None
    assert bool((scores.grad != 0).any()) == (name in SOFT)


def test_without_a_positive_mse_fits_every_margin_that_the_teacher_orders() -> None:
    errors = [(0.9 - 0.7) - 0.3, (0.9 - 0.2) - 0.8, (0.7 - 0.2) - 0.5, (0.6 - 0.8) - 0.5]
    assert value("mse", relevance=NEITHER) == pytest.approx(sum(error**2 for error in errors) / 4)


@pytest.mark.parametrize("name", ["infonce", "triplet", "sum_marginal", "joint", "lsepair"])
def test_a_document_that_is_neither_is_not_pushed_away(name: str) -> None:
    raised = torch.tensor(SCORES, dtype=torch.float64)
    raised[0, 2] += 0.3
    kept = [[1.0, 1.0, -1.0], [1.0, 0.0, 0.0]]
    assert TERMS[name](batch(raised, relevance=kept), RULES) == value(name, relevance=kept)
    assert TERMS[name](batch(raised), RULES) > value(name)


def test_a_teacher_temperature_of_a_hundredth_makes_soft_targets_one_hot() -> None:
    """Measured, and why the default is not that: nothing is left of the teacher's second choice."""
    rules = LossRules(temperature=0.5, teacher_temperature=0.01)
    found = TERMS["kl"](batch(), rules).item()
    first, second = -math.log(e(0.9) / (e(0.9) + e(0.7) + e(0.2))), -math.log(e(0.6) / (e(0.6) + e(0.8)))
    assert found == pytest.approx((first + second) / 2, abs=1e-9)
