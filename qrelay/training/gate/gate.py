"""One version through the gate: what serves now is measured against it, and the verdict is recorded.

What needs no model is checked first; where that fails, nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qrelay.errors import InputError
from qrelay.models.registry import KINDS, Registry, collection_of, slot_of
from qrelay.training.gate.baseline import Subject, evaluated, of_version, serving
from qrelay.training.gate.decide import BETTER, Decision, Pair, Row, better, decide, no_worse
from qrelay.training.gate.facts import judges_row, unseen_row
from qrelay.training.gate.rules import GateRules, SlotRules, frozen_setting

if TYPE_CHECKING:
    from qrelay.training.evaluation.frozen import FrozenSet

Say = Callable[[str], None]


def gate(
    registry: Registry,
    version: str,
    rules: GateRules,
    configured: Mapping[str, str],
    *,
    pair_tokens: int = 0,
    by: str = "",
    say: Say = lambda _: None,
) -> Decision:
    """Decides on the version and records it in the registry. configured: kind -> the service's model where nothing is
    promoted (the rules' `baseline` wins over it). pair_tokens: the most that the reranker reads of a pair
    with the configured cross-encoder; 0: what that model reads.

    Raises:
        InputError: there is no such version, or no such measure.
        ModelError: the version's bytes are damaged, or a model is absent.
        MalformedInput: a set is not what it must be.
    """
    manifest = registry.manifest(version)
    registry.verify(version)
    slot, wanted = manifest.slot, rules.of(manifest.slot)
    beside = {kind: rules.of(slot_of(kind, collection_of(slot))) for kind in KINDS}
    models = {kind: each.baseline or configured.get(kind, "") for kind, each in beside.items()}
    served = registry.serving(slot)
    against = served.version if served else ""
    if against == version:
        raise InputError(f"{version} serves already: roll back first, or gate a version that does not serve")
    baseline = serving(registry, slot, models, pair_tokens)
    rows = tuple(_rows(registry, version, slot, wanted, baseline, say))
    found = decide(version, slot, against, f"{baseline.name}, {baseline.how}", rows)
    registry.record_gate(version, found.as_json(), by=by)
    return found


def _rows(
    registry: Registry, version: str, slot: str, rules: SlotRules, baseline: Subject, say: Say
) -> Iterator[Row]:
    if rules.frozen is None:
        yield Row(BETTER, False, f"no frozen set is configured: set {frozen_setting(slot)}, or give --rules")
        return
    sets = _read([*rules.folders()])
    facts = [row for each in sets.values() for row in _facts(registry, version, each, rules)]
    yield from facts
    if not all(row.passed for row in facts):
        return
    candidate = of_version(registry, version, slot)
    keep = registry.folder / "evaluations"
    pair = _measured(candidate, baseline, sets[rules.frozen], rules.metric, keep, say)
    effect = rules.minimum_effect
    yield better(pair, alpha=rules.alpha, minimum_effect=effect, min_queries=rules.min_queries)
    for guard in rules.guard:
        pair = _measured(candidate, baseline, sets[guard.set], guard.metric, keep, say)
        yield no_worse(pair, alpha=rules.alpha, max_drop=guard.max_drop, min_queries=rules.min_queries)


def _read(folders: list[Path]) -> dict[Path, FrozenSet]:
    from qrelay.training.evaluation.frozen import FrozenSet

    return {folder: FrozenSet.read(folder) for folder in dict.fromkeys(folders)}


def _facts(registry: Registry, version: str, frozen: FrozenSet, rules: SlotRules) -> tuple[Row, Row]:
    return judges_row(registry, version, frozen, rules.evaluation_judge), unseen_row(registry, version, frozen)


def _measured(candidate: Subject, baseline: Subject, frozen: FrozenSet, metric: str, keep: Path, say: Say) -> Pair:
    say(f"measuring {baseline.name} and {candidate.name} on {frozen.name}")
    old = evaluated(baseline, frozen, metric, keep)
    new = evaluated(candidate, frozen, metric, keep)
    return Pair(frozen.name, metric, old.values[metric], new.values[metric])
