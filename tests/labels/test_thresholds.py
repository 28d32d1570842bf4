"""Counts of P(relevant) are exact at every hundredth, and the same whether kept up or counted anew."""

from __future__ import annotations

import dataclasses
import random
import threading

from qrelay.labels.browse.thresholds import BINS, Histogram, Histograms
from qrelay.labels.ledger.ledger import Ledger
from qrelay.scales import RELEVANT_GRADE
from qrelay.types import Graded, Missing
from tests.labels.builders import FUSED, JUDGE, OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.test_browse import varied


def counted(ledger: Ledger, histograms: Histograms, collection: str = "docs") -> list[Histogram]:
    with ledger.snapshot() as snapshot:
        return histograms.of(snapshot, collection, RELEVANT_GRADE)


def test_every_hundredth_is_counted_on_its_own_side(ledger: Ledger) -> None:
    outcomes: list[Graded | Missing] = [graded(0, k / BINS) for k in range(BINS + 1)]
    ledger.commit([judged_set("q", outcomes=[*outcomes, Missing("timeout", "")])])
    [found] = counted(ledger, Histograms())
    assert found.bins == [1] * (BINS + 1)
    assert [found.reaching(k) for k in (0, 29, 57, 100)] == [101, 72, 44, 1]
    assert [found.below(k) for k in (0, 29, 57, 100)] == [0, 29, 57, 100]
    assert (found.labels, found.missing, sum(found.relevant)) == (101, 1, 0)


def test_what_is_kept_up_is_what_is_counted_anew(ledger: Ledger) -> None:
    rng, kept = random.Random(3), Histograms()
    for number in range(6):
        ledger.commit([varied(rng, f"q{number}"), varied(rng, f"q{number}", "other")])
        if number % 2:
            late = dataclasses.replace(OTHER_JUDGE, revision=f"r{number}")
            ledger.rejudge([relabelled(judged_set("q0"), judgment("d0#0", graded(3, rng.random()), late))])
        assert counted(ledger, kept) == counted(ledger, Histograms())
    assert counted(ledger, kept, "nowhere") == []


def test_relevant_is_what_the_judges_scale_says(ledger: Ledger) -> None:
    stars = dataclasses.replace(JUDGE, scale="stars")
    judges = (JUDGE, FUSED, stars)
    ledger.commit(
        [judged_set(f"q{n}", outcomes=[graded(2, 0.3), graded(1, 0.9)], judge=j) for n, j in enumerate(judges)]
    )
    found = {each.judge.identity: each for each in counted(ledger, Histograms())}
    assert found[JUDGE].relevant[30] == found[FUSED].relevant[30] == 1
    assert (found[stars].relevant[90], found[stars].others[30]) == (1, 1), "nobody explains it: by P(relevant)"


def test_threads_that_look_at_once_count_once(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{n}") for n in range(20)])
    kept, found = Histograms(), []
    threads = [threading.Thread(target=lambda: found.append(counted(ledger, kept))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [[each.labels for each in one] for one in found] == [[40]] * 8
