"""The simulated pipeline: it replays exactly, keeps its promises, and finds every fault that is put back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS, SEEDS
from tests.simulation.run import run_seeds

_MANY = range(1, 81)
"""`make simulate` runs a thousand."""
_KILLERS = range(1, 31)
_FEW = range(1, 7)


def test_a_seed_replays_exactly_also_in_another_process() -> None:
    here = [outcome.digest for outcome in run_seeds(_FEW)]
    assert here == [outcome.digest for outcome in run_seeds(_FEW)]
    program = f"from tests.simulation.run import run_seeds\nprint(*(each.digest for each in run_seeds({_FEW!r})))"
    environ = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    there = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here
    assert len(set(here)) == len(here)


def test_whatever_breaks_and_whoever_sends_everything_accepted_is_settled_once() -> None:
    outcomes = [*run_seeds(_MANY)]
    wrong = {outcome.seed: outcome.findings for outcome in outcomes if outcome.findings}
    assert not wrong, f"python -m tests.simulation --seed {min(wrong)} -v"
    assert all(outcome.queries >= 10 for outcome in outcomes)


def test_a_message_over_which_a_stage_dies_takes_no_neighbour_along() -> None:
    outcomes = [*run_seeds(_KILLERS, odd="killer")]
    assert not [finding for outcome in outcomes for finding in outcome.findings]
    assert sum(outcome.dead for outcome in outcomes) == 0


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_that_is_put_back_is_found(name: str) -> None:
    mutation = MUTATIONS[name]
    found = (outcome.findings for outcome in run_seeds(SEEDS, odd=mutation.odd, parts=mutation.parts()))
    assert any(mutation.says in finding for findings in found for finding in findings)
