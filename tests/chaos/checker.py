"""What the evidence says of every query: pure functions, tried on made-up evidence in test_checker.py.

    ok          committed exactly once, with the text that was fed
    lost        accepted, and nowhere
    duplicated  committed twice, labelled twice, or committed and a dead letter as well
    unexpected  committed, though nobody fed it, or not with this text
    unknown     no final state when time was up: still in a stream, or a dead letter where none was due

The checker knows nothing of `qrelay reconcile`: the two have to agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STATES = ("ok", "lost", "duplicated", "unexpected", "unknown")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found when all was over.

    committed: (query_id, text) row by row, so that a second row shows. labelled: query_id -> how many times labels
    were added. pairs: (query_id, passage_id) judgment by judgment. waiting: query_ids of dead letters that wait.
    in_flight: query_ids of messages in streams. triggers: job names of the ledger's triggers with their states; jobs:
    the job names that ran, run by run.
    """

    committed: Sequence[tuple[str, str]]
    labelled: Mapping[str, int] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    waiting: Sequence[str] = ()
    in_flight: Sequence[str] = ()
    triggers: Mapping[str, str] = field(default_factory=dict)
    jobs: Sequence[str] = ()


def classify(fed: Mapping[str, str], evidence: Evidence) -> dict[str, list[str]]:
    """State -> query_ids, every query in one state; `fed` maps the accepted query_ids to their texts."""
    rows = Counter(evidence.committed)
    relabelled = {query_id for query_id, times in evidence.labelled.items() if times > 1}
    twice_judged = {query_id for (query_id, _), times in Counter(evidence.pairs).items() if times > 1}
    waiting, flying = set(evidence.waiting), set(evidence.in_flight)
    found: dict[str, list[str]] = {state: [] for state in STATES}
    for query_id, text in fed.items():
        times = rows[query_id, text]
        more = query_id in relabelled or query_id in twice_judged or query_id in waiting
        if times > 1 or (times and more):
            found["duplicated"].append(query_id)
        elif times:
            found["ok"].append(query_id)
        elif query_id in waiting or query_id in flying:
            found["unknown"].append(query_id)
        else:
            found["lost"].append(query_id)
    unknown = {query_id for query_id, text in rows if fed.get(query_id) != text} | (waiting - fed.keys())
    found["unexpected"] = sorted(unknown)
    return found


def wrong_jobs(evidence: Evidence) -> list[str]:
    """What is wrong with the training jobs; empty where each trigger ran exactly one."""
    runs = Counter(evidence.jobs)
    states = evidence.triggers.items()
    wrong = [f"trigger {job} ({state}) ran {runs[job]} jobs" for job, state in states if runs[job] != 1]
    return wrong + [f"job {job} ran without a trigger" for job in runs if job not in evidence.triggers]
