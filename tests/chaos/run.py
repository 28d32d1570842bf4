"""One seed from its start to its verdict."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import evidence as collecting
from tests.chaos.checker import STATES, classify, wrong_jobs
from tests.chaos.database import Postgres, small_disk
from tests.chaos.faults import FAULTS
from tests.chaos.scene import Scene, scene
from tests.chaos.schedule import Step
from tests.pipeline.harness import COLLECTION, Installation

KINDS = ("qrels", "triples")
_SAME = {"ok": "committed", "lost": "lost", "duplicated": "duplicated", "unexpected": "unexpected"}
"""Our words for a state, and reconcile's."""


@dataclass
class Outcome:
    """What a seed came to. `faults`: kind -> how often it really happened; `missed`: drawn, and did not happen."""

    seed: int
    ledger: str
    states: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    exports_identical: bool = False
    repaired: int = 0
    """Queries that a person's deletion had taken, fed again by `qrelay reconcile --repair`."""
    triggers: int = 0
    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether everything held."""
        bad = sum(count for state, count in self.states.items() if state != "ok")
        return self.exports_identical and not bad and not self.wrong


@dataclass(frozen=True)
class Setting:
    """What the seeds of a run share."""

    folder: Path
    environ: Mapping[str, str]
    queries: Mapping[str, str]
    expected: Mapping[str, bytes]
    postgres: Postgres | None
    say: Callable[[str], None]


def undisturbed(folder: Path, environ: Mapping[str, str], queries: Mapping[str, str]) -> dict[str, bytes]:
    """The exports of a run in which nothing happens."""
    lines = "".join(f"{query_id}\t{text}\n" for query_id, text in queries.items())
    with Installation(folder, dict(environ)) as installation:
        report = installation.run("feed", "-", "--collection", COLLECTION, "--wait", stdin=lines)
        assert (report["committed"], report["dead"]) == (len(queries), 0), report
        found = {kind: installation.export(kind) for kind in KINDS}
    assert all(found.values()), "the undisturbed run must export something to compare"
    return found


def run_seed(setting: Setting, seed: int, ledger: str, steps: Sequence[Step]) -> Outcome:
    """Run a seed. An error of the harness, or an installation that does not recover, is wrong, and never silent."""
    outcome, started = Outcome(seed, ledger), time.monotonic()
    folder = setting.folder / f"seed-{seed}-{ledger}"
    try:
        with contextlib.ExitStack() as stack:
            prepared = _prepare(stack, setting, folder, seed, ledger, len(steps))
            try:
                _disturb(prepared, steps, outcome)
                _conclude(prepared, setting, outcome)
            finally:
                outcome.wrong += prepared.wrong
                _save(prepared, folder)
    except Exception as error:
        outcome.wrong.append(f"{type(error).__name__}: {error}")
        outcome.states.setdefault("unknown", len(setting.queries))
    outcome.seconds = time.monotonic() - started
    return outcome


def _prepare(
    stack: contextlib.ExitStack, setting: Setting, folder: Path, seed: int, ledger: str, portions: int
) -> Scene:
    postgres = setting.postgres if ledger == "postgresql" else None
    disk = folder / "disk"
    mounted = postgres is None and stack.enter_context(small_disk(disk))
    url = postgres.database(f"seed_{seed}") if postgres else str(disk / "ledger.sqlite")
    return stack.enter_context(
        scene(
            folder,
            setting.environ,
            setting.queries,
            2 * portions,
            seed,
            url,
            postgres=postgres,
            small_disk=disk if mounted else None,
        )
    )


def _save(scene: Scene, folder: Path) -> None:
    """The ledger, off its small disk, which goes with the seed: for whoever has to find out what happened."""
    if scene.small_disk is not None:
        for file in scene.small_disk.glob("ledger.sqlite*"):
            shutil.copy(file, folder)


def _disturb(scene: Scene, steps: Sequence[Step], outcome: Outcome) -> None:
    """Portion, moment, fault; and again."""
    for step in steps:
        scene.feeding.portion()
        time.sleep(step.delay_s)
        happened = FAULTS[step.kind].run(scene, step)
        outcome.faults[step.kind] += happened
        if not happened:
            outcome.missed.append(step.kind)
    scene.feeding.finish()


def _conclude(scene: Scene, setting: Setting, outcome: Outcome) -> None:
    """Feed the file once more, wait for the end, collect, compare."""
    installation = scene.installation
    report = installation.run("feed", str(scene.feeding.file), "--collection", COLLECTION)
    if report["accepted"] + report["known"] != len(setting.queries) or report["rejected"]:
        scene.wrong.append(f"the feed reports {report}")
    if not collecting.await_calm(scene):
        scene.wrong.append("work was left, and nothing moved any more")
    if scene.losses:
        _repair(scene, outcome)
    found = collecting.collect(scene)
    outcome.examples = classify(setting.queries, found)
    outcome.states = Counter({state: len(outcome.examples[state]) for state in STATES})
    outcome.triggers, outcome.jobs = len(found.triggers), len(found.jobs)
    scene.wrong += wrong_jobs(found)
    _compare_with_reconcile(scene, outcome)
    made = collecting.exports(scene, KINDS)
    outcome.exports_identical = made == dict(setting.expected)


def _repair(scene: Scene, outcome: Outcome) -> None:
    """What somebody deleted comes back once, and all of it: nothing is lost afterwards."""
    report = scene.installation.run("reconcile", "--collection", COLLECTION, "--pause", "0.5", "--repair")
    outcome.repaired = report["reemitted"]
    if report["reemitted"] != report["lost"]:
        scene.wrong.append(f"{report['lost']} lost, and {report['reemitted']} fed again")
    if not collecting.await_calm(scene):
        scene.wrong.append("what was fed again did not end")


def _compare_with_reconcile(scene: Scene, outcome: Outcome) -> None:
    """The two have to agree, or one of them is blind."""
    report = scene.installation.run("reconcile", "--collection", COLLECTION, "--pause", "0.5")
    for state, name in _SAME.items():
        if report[name] != outcome.states[state]:
            scene.wrong.append(f"reconcile says {name} {report[name]}, the checker {outcome.states[state]}")
