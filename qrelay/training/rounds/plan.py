"""--dry-run: what the rounds would do, and how many judgments they cost at most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qrelay.errors import NotQualified
from qrelay.formats.lines import byte_lines
from qrelay.settings import load_settings
from qrelay.training.gate.rules import frozen_setting
from qrelay.training.job.data import require_permitted
from qrelay.training.rounds.rounds import Rounds


def plan(rounds: Rounds, n: int, config: Path | None) -> Iterator[str]:
    """A line a fact.

    Raises:
        ConfigError: settings, rules or experiments that do not hold.
        MalformedInput: a frozen set that is not what it must be.
    """
    from qrelay.services.reranker.settings import RerankerSettings

    series = rounds.file.read()
    asked = sum(1 for _ in byte_lines(rounds.queries))
    data_dir = rounds.installation.data_dir
    sample = load_settings(RerankerSettings, "reranker", file=config, data_dir=data_dir).sample
    left = max(0, n - series.done) if not series.stopped else 0
    yield f"rounds: {series.done} done, {left} to go{f'; stopped: {series.stopped}' if series.stopped else ''}"
    missing = rounds.installation.missing
    yield f"services: {'`qrelay up` is started for the rounds' if missing else 'those that run are used'}"
    yield (
        f"judgments: at most {asked} queries x {sample} (reranker.sample) = {asked * sample} a round,"
        f" {asked * sample * left} in all; what the cache knows costs nothing"
    )
    yield f"training data: {_teaches(rounds, config)}"
    yield from _slots(rounds)


def _teaches(rounds: Rounds, config: Path | None) -> str:
    """Whether the existing labels may train."""
    try:
        require_permitted(rounds.job("asked"), rounds.settings, config)
    except NotQualified as error:
        return f"refused; {error}"
    return "of the labels that are there, none is refused"


def _slots(rounds: Rounds) -> Iterator[str]:
    from qrelay.training.evaluation.frozen import FrozenSet
    from qrelay.training.experiment import load_experiment

    settings = rounds.settings
    for slot in settings.slots(rounds.collection):
        wanted, rules = settings.of(slot), settings.rules().of(slot)
        experiment = load_experiment(wanted.experiment, wanted.overrides)
        yield (
            f"{slot}: {wanted.experiment} from {wanted.start} ({experiment.model}) on {wanted.export}, once"
            f" {settings.min_queries} training queries are there"
        )
        if rules.frozen is None:
            yield f"  gate: nothing passes, for {frozen_setting(slot)} names no set"
            continue
        sets = [FrozenSet.read(folder) for folder in rules.folders()]
        guards = ", ".join(f"{each.name} ({len(each.collection.queries)})" for each in sets[1:]) or "none"
        yield (
            f"  gate: {rules.metric} on {sets[0].name} ({len(sets[0].collection.queries)} queries), alpha"
            f" {rules.alpha:g}, minimum effect {rules.minimum_effect:g}; guards: {guards};"
            f" {'promoted at once' if settings.promote else 'promoted by hand'}"
        )
