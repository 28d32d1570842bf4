"""Training a model, stage after stage: `train(experiment, data, out)`.

A run's folder: `model/` (the result, a sentence-transformers folder), `run.json` (see `record.py`) and
`checkpoints/` (see `stages.py`). A run that was killed goes on where it was when it is called again with the
same arguments; a finished one returns at once.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qrelay.errors import ConfigError
from qrelay.formats.beir import Collection
from qrelay.models.catalogue import resolve
from qrelay.training import record as records
from qrelay.training.data import Reading, expand, read_examples
from qrelay.training.experiment import Experiment
from qrelay.training.gate.facts import read_query_hashes, write_query_hashes

if TYPE_CHECKING:
    from qrelay.training.evaluator import DevEvaluator
    from qrelay.training.stages import Kind

LOG = logging.getLogger("qrelay.train")


def train(experiment: Experiment, data: Sequence[str], out: Path, dev: Collection | None = None) -> Path:
    """Trains and returns `out/model`. `data`: globs for stages that name none; `dev`: what early_stop stops by, and
    what the model is measured on before and after.

    Raises:
        ConfigError: no data, or none to train on; labels that a stage does not take; early_stop without dev; `out`
            holds another run; LoRA, bf16 or a reporter that this machine does not have.
        MalformedInput: a line of the data that is none.
        ModelError: no such model.
    """
    files = records.hashes(expand([glob for stage in experiment.stages for glob in stage.data or data]))
    record = records.begin(out, experiment.resolved(), files)
    result = out / "model"
    if record["state"] == "done" and (result / "modules.json").exists():
        return result
    _train(kind_of(experiment), experiment, data, out, dev, record)
    return result


def kind_of(experiment: Experiment) -> Kind:
    """What trains this kind of model."""
    if experiment.kind == "cross_encoder":
        from qrelay.training.cross_encoder import CrossEncoderKind

        return CrossEncoderKind()
    from qrelay.training.bi_encoder import BiEncoder

    return BiEncoder()


def _train(
    kind: Kind, experiment: Experiment, data: Sequence[str], out: Path, dev: Collection | None, record: dict[str, Any]
) -> None:
    from transformers import set_seed

    from qrelay.training import weights
    from qrelay.training.stages import evaluator_of, run_stage, wait_for_all

    set_seed(experiment.seed)
    queries = _queries(experiment, data)  # before training: a file may be gone after it
    resolved = resolve(experiment.model)
    folder = resolved.path
    record["base"] = {"model": resolved.name, "revision": resolved.revision}
    model = _load(kind, experiment, folder)
    base = weights.base_weights(model, folder) if experiment.merge < 1 else {}
    evaluator = evaluator_of(kind, experiment, dev)
    _measure(record, "before", evaluator, model)
    weights.add_adapters(model, experiment)
    record["stages"] = [
        run_stage(kind, model, experiment, stage, data, out, evaluator) for stage in experiment.stages
    ]
    weights.fold_adapters(model)
    if base:
        weights.merge_with_base(model, base, experiment.merge)
    _measure(record, "after", evaluator, model)
    if records.first_process():
        _save(model, out, queries, read_query_hashes(folder) or ())
        records.write(out, {**record, "state": "done"})
    wait_for_all()


def _load(kind: Kind, experiment: Experiment, folder: Path) -> Any:
    try:
        return kind.load(experiment, folder)
    except ImportError as error:
        raise ConfigError(f"attention {experiment.attention} cannot be used here: {error}") from error


def _measure(record: dict[str, Any], when: str, evaluator: DevEvaluator | None, model: Any) -> None:
    """Dev before and after; says so where training made it worse."""
    if evaluator is None or when in record.get("dev", {}):
        return
    value = evaluator(model)[evaluator.primary_metric]
    found = record.setdefault("dev", {"metric": evaluator.primary_metric})
    found[when] = value
    LOG.info("dev %s %s training: %.4f", evaluator.primary_metric, when, value)
    if when == "after" and value < found["before"]:
        LOG.warning(
            "training made the model worse on dev (%.4f, it was %.4f): docs/training.md says why that happens",
            value, found["before"],
        )  # fmt: skip


def _queries(experiment: Experiment, data: Sequence[str]) -> set[str]:
    """The texts of the queries that all stages learnt from."""
    files = expand([glob for stage in experiment.stages for glob in stage.data or data])
    reading = Reading(target=experiment.target, positives="target")
    return {example.query for example in read_examples(files, reading)}


def _save(model: Any, out: Path, queries: Iterable[str], inherited: Iterable[str]) -> None:
    """The result, whole or not there. It says, as hashes, which queries it was trained on: neither a gate nor people
    that measure it as a judge may ask it about those."""
    part = out / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(out / "model", ignore_errors=True)
    model.save_pretrained(str(part), create_model_card=False)
    write_query_hashes(part, queries, inherited)
    part.rename(out / "model")
