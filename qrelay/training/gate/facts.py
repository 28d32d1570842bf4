"""What the gate checks without a model: whose labels the set has, and whether its queries were trained on.

A version carries the hashes of its training queries in `training-queries.txt`, within its model's folder: so they are
as immutable as its weights, and no text leaves with a model that is pushed. What a version's parents were
trained on, it was trained on: its file holds their queries too, and their judges count as its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qrelay.errors import ModelError
from qrelay.files import write_atomic
from qrelay.models.registry import JudgeRef, Manifest, Registry
from qrelay.training.evaluation.families import families
from qrelay.training.gate.decide import Row
from qrelay.words import normalised

if TYPE_CHECKING:
    from qrelay.training.evaluation.frozen import FrozenSet

QUERIES_FILE: Final = "training-queries.txt"
JUDGES: Final = "other judges"
UNSEEN: Final = "unseen queries"
HUMAN: Final = "human"
"""The strategy under which exports name people (qrelay/labels/ledger/people.py)."""
_HEX: Final = 32


def query_hash(text: str) -> str:
    """Of a query's words: texts that differ in spacing, punctuation or case are one query."""
    return hashlib.sha256((normalised(text) or text).encode()).hexdigest()[:_HEX]


def write_query_hashes(model: Path, queries: Iterable[str], inherited: Iterable[str] = ()) -> None:
    """Puts the hashes of the training queries (texts), and those of a parent (hashes), into a model's folder, before
    it is published. The same queries give the same bytes."""
    lines = sorted({query_hash(text) for text in queries}.union(inherited))
    write_atomic(model / QUERIES_FILE, "".join(f"{line}\n" for line in lines))


def read_query_hashes(model: Path) -> frozenset[str] | None:
    """Those of a model's folder; None: it does not say what it was trained on. Raises ModelError: damaged."""
    path = model / QUERIES_FILE
    try:
        return frozenset(path.read_text("utf8").split()) if path.exists() else None
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): restore the registry from a backup") from error


def lineage(registry: Registry, version: str) -> Iterator[Manifest]:
    """The version's manifest, its parent's, and so on."""
    seen: set[str] = set()
    while version and version not in seen:
        seen.add(version)
        manifest = registry.manifest(version)
        yield manifest
        version = manifest.parent


def judges_row(registry: Registry, version: str, frozen: FrozenSet, demand: str) -> Row:
    """Invariant 7: who judged the set has not judged the training data. demand: `SlotRules.evaluation_judge`."""
    if frozen.source != "judge":
        return Row(JUDGES, True, f"{frozen.name} has {frozen.source} labels", frozen.name)
    miners = {judge.hash: judge for manifest in lineage(registry, version) for judge in manifest.judges}
    for each in frozen.judges:
        model, revision = str(each["model"]), str(each.get("revision", ""))
        for miner in miners.values():
            if same := _same(model, revision, miner, demand):
                why = (
                    f"{frozen.name} was judged by {model} and {version} trained on labels of {miner.model}: {same};"
                    " evaluate on people's or gold labels, or on those of another judge"
                )
                return Row(JUDGES, False, why, frozen.name, threshold=demand.replace("_", " "))
    judged = ", ".join(sorted({str(each["model"]) for each in frozen.judges}))
    why = f"{frozen.name} was judged by {judged}, which judged nothing that {version} was trained on"
    return Row(JUDGES, True, why, frozen.name, threshold=demand.replace("_", " "))


def _same(model: str, revision: str, miner: JudgeRef, demand: str) -> str:
    """Why two judges are too much alike; empty: they are not. A revision that nobody named may be the other's."""
    if miner.strategy == HUMAN:
        return ""
    if model == miner.model and (revision == miner.revision or not (revision and miner.revision)):
        return "the same model"
    if demand == "other_family" and (shared := families(model) & families(miner.model)):
        return f"both of the family {', '.join(sorted(shared))}"
    return ""


def unseen_row(registry: Registry, version: str, frozen: FrozenSet) -> Row:
    """No query of the set was trained on."""
    asked = {query_hash(text): query_id for query_id, text in frozen.collection.queries.items()}
    trained_on = read_query_hashes(registry.model_dir(version))
    threshold = "0 queries in common"
    if trained_on is None:
        why = f"{version} does not say what queries it was trained on: publish it with its {QUERIES_FILE}"
        return Row(UNSEEN, False, why, frozen.name, threshold=threshold)
    shared = sorted(asked[each] for each in trained_on & asked.keys())
    why = f"{version} was trained on no query of {frozen.name}"
    if shared:
        ids = ", ".join(shared[:3])
        why = (
            f"{version} was trained on {len(shared)} of {frozen.name}'s {len(asked)} queries ({ids}): train without"
            " them"
        )
    return Row(UNSEEN, not shared, why, frozen.name, queries=len(shared), threshold=threshold)
