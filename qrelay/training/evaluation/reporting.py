"""Several systems on one collection, the first the baseline: evaluations, comparisons, and the document of both."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.formats.beir import Collection, Run
from qrelay.formats.runs import run_lines
from qrelay.training.evaluation.answering import Options, answer, kind_of
from qrelay.training.evaluation.evaluate import Evaluation, comparison_json, evaluate
from qrelay.training.evaluation.measures import STANDARD


@dataclass(frozen=True)
class Evaluated:
    """A system's run and what it is worth."""

    evaluation: Evaluation
    run: Run


def evaluate_models(
    collection: Collection,
    models: Sequence[str],
    options: Options,
    measures: Sequence[str] = STANDARD,
) -> list[Evaluated]:
    """Each model in order.

    Raises:
        ConfigError: a model is named twice, or a first run is given and none of them is a cross-encoder.
        ModelError, InputError: see `answer`; an unknown measure.
    """
    if len(set(models)) < len(models):
        raise ConfigError("a model is named twice: name each once")
    kinds = [kind_of(model) for model in models]
    if options.first is not None and "cross_encoder" not in kinds:
        raise ConfigError("--run is for a cross-encoder to reorder, and none of the models is one: leave it out")
    found = []
    for model in models:
        run = answer(collection, model, options)
        found.append(Evaluated(evaluate(collection, model, run, measures), run))
    return found


def document_of(
    collection: Collection, evaluated: Sequence[Evaluated], baseline: Evaluation | None = None
) -> dict[str, Any]:
    """One system: its evaluation, and `against` where there is a baseline. Several: `systems`, and `comparisons` of
    each with the first."""
    evaluations = [each.evaluation for each in evaluated]
    facts = facts_of(collection)
    if len(evaluations) == 1:
        document = {**evaluations[0].as_json(), "intervals": _intervals(evaluations[0]), "facts": facts}
        if baseline:
            document["against"] = comparison_json(baseline, evaluations[0], collection)
        return document
    first = baseline or evaluations[0]
    rest = evaluations if baseline else evaluations[1:]
    return {
        "facts": facts,
        "systems": [{**each.as_json(), "intervals": _intervals(each)} for each in evaluations],
        "comparisons": [comparison_json(first, each, collection) for each in rest],
    }


def facts_of(collection: Collection) -> dict[str, Any]:
    """What was measured on."""
    return {
        "documents": len(collection.doc_ids),
        "queries": len(collection.queries),
        "relevant_from": collection.relevant_from,
        "relevant_documents_absent": collection.absent,
        "corpus_sha256": collection.corpus_hash,
        "collection_sha256": collection.hash,
    }


def write_runs(place: Path, evaluated: Sequence[Evaluated]) -> None:
    """TREC runs: the file `place` of one system, or `place/SYSTEM.run` of several."""
    for each in evaluated:
        tag = file_name(each.evaluation.system)
        path = place if len(evaluated) == 1 else place / f"{tag}.run"
        write_atomic(path, "".join(run_lines(each.run, tag)))


def file_name(system: str) -> str:
    """A word for a system: the last two parts of its path, letters and digits."""
    return re.sub(r"[^\w.-]+", "-", "-".join(Path(system).parts[-2:])).strip("-.") or "system"


def comparisons_in(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of a document of either shape."""
    if "systems" in document:
        return list(document["comparisons"])
    return [document["against"]] if "against" in document else []


def systems_in(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of a document of either shape."""
    return list(document["systems"]) if "systems" in document else [document]


def _intervals(evaluation: Evaluation) -> dict[str, list[float] | None]:
    """measure -> 95% interval of its mean; None with fewer than two queries."""
    return {name: None if math.isnan(low) else [low, high] for name, (low, high) in evaluation.intervals().items()}
