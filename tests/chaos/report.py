"""The table, a row a seed, and the last line: one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.checker import STATES
from tests.chaos.run import Outcome

HEAD = (
    "| seed | ledger | ok | lost | duplicated | unexpected | unknown | exports | triggers / jobs | faults | s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(outcome: Outcome) -> str:
    """One line of the table."""
    faults = ", ".join(f"{kind}" + (f" x{n}" if n > 1 else "") for kind, n in sorted(outcome.faults.items()) if n)
    missed = f" (did not happen: {', '.join(outcome.missed)})" if outcome.missed else ""
    counts = " | ".join(str(outcome.states[state]) for state in STATES)
    exports = "identical" if outcome.exports_identical else "DIFFERENT"
    return (
        f"| {outcome.seed} | {outcome.ledger} | {counts} | {exports} | {outcome.triggers} / {outcome.jobs} "
        f"| {faults}{missed} | {outcome.seconds:.0f} |"
    )


def problems(outcomes: Sequence[Outcome], *, training: bool) -> list[str]:
    """Everything that is not as it must be, seed by seed; a fault that was drawn and never happened is one."""
    found = [f"seed {each.seed}: {text}" for each in outcomes for text in each.wrong]
    for each in outcomes:
        found += [
            f"seed {each.seed}: {state}: {' '.join(each.examples.get(state, [])[:10])}"
            for state in STATES
            if state != "ok" and each.states[state]
        ]
        if not each.exports_identical:
            found.append(f"seed {each.seed}: exports differ from the undisturbed run's")
    happened, missed = _faults(outcomes)
    found += [f"{kind} was drawn and never happened" for kind in sorted(missed) if not happened[kind]]
    if training and not sum(each.triggers for each in outcomes):
        found.append("the training policy never fired: nothing was tested of it")
    return found


def last_line(
    outcomes: Sequence[Outcome], queries: int, out: Mapping[str, str], found: Sequence[str]
) -> dict[str, Any]:
    """The counts of a run. `queries`: of one seed; exports_identical and triggers_ok count seeds; faults: what really
    happened; missed: drawn and did not happen; left_out: what could not be drawn, and why."""
    states = sum((each.states for each in outcomes), Counter())
    happened, missed = _faults(outcomes)
    return {
        "seeds": len(outcomes),
        "queries": queries * len(outcomes),
        **{state: states[state] for state in STATES},
        "repaired": sum(each.repaired for each in outcomes),
        "exports_identical": sum(each.exports_identical for each in outcomes),
        "triggers": sum(each.triggers for each in outcomes),
        "jobs": sum(each.jobs for each in outcomes),
        "faults": dict(sorted(happened.items())),
        "missed": dict(sorted(missed.items())),
        "left_out": dict(out),
        "problems": list(found),
        "seconds": round(sum(each.seconds for each in outcomes)),
    }


def _faults(outcomes: Sequence[Outcome]) -> tuple[Counter[str], Counter[str]]:
    happened: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for each in outcomes:
        happened.update({kind: count for kind, count in each.faults.items() if count})
        missed.update(each.missed)
    return happened, missed
