"""One stage of a curriculum, of either kind of model, with sentence-transformers' own trainers.

A stage's folder, `checkpoints/<stage>/`: the trainer's checkpoints, which a killed run goes on from; `final/`, the
weights that leave the stage; `record.json`, what it used and found; `log.json`, the trainer's log; `done`, last. With
torchrun every process trains, the first one alone writes, and all wait for it.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.formats.beir import Collection
from qrelay.training.data import Example, Reading, expand, load_examples, require_labels
from qrelay.training.evaluator import DevEvaluator, Ranker
from qrelay.training.experiment import Experiment, Stage
from qrelay.training.record import hashes
from qrelay.training.weights import weights

LOG = logging.getLogger("qrelay.train")
_LOGS_A_STAGE: Final = 50
METRIC: Final = "nDCG@10"
"""Of the measurement before and after training, where no early stop names another."""


class Kind(Protocol):
    """What differs between the kinds of models."""

    def load(self, experiment: Experiment, path: Path) -> Any:
        """The model in a folder."""

    def dataset(self, examples: Sequence[Example], experiment: Experiment) -> Any:
        """A `datasets.Dataset`. Raises ConfigError where no example is left."""

    def begin(self, experiment: Experiment, model: Any, dataset: Any) -> None:
        """Fits a head that is new to the data that it will see first."""

    def loss(self, experiment: Experiment, model: Any) -> Any:
        """The loss, as the trainer takes it."""

    def arguments(self, **values: Any) -> Any:
        """The trainer's arguments."""

    def trainer(self, model: Any, **values: Any) -> Any:
        """The trainer."""

    def ranker(self, dev: Collection) -> Ranker:
        """What ranks the dev corpus by a model."""


def run_stage(
    kind: Kind,
    model: Any,
    experiment: Experiment,
    stage: Stage,
    data: Sequence[str],
    out: Path,
    evaluator: DevEvaluator | None,
) -> dict[str, Any]:
    """Trains the model in place and returns the stage's record; of a stage that is done, loads what left it.

    Raises:
        ConfigError: no data, or none to train on; labels that the stage does not take.
        MalformedInput: a line of the data that is none.
    """
    folder = out / "checkpoints" / stage.name
    if (folder / "done").exists():
        model.load_state_dict(weights(kind.load(experiment, folder / "final")))
        found: dict[str, Any] = orjson.loads((folder / "record.json").read_bytes())
        return found
    dataset, record = _prepared(kind, experiment, stage, data)
    LOG.info("stage %s: %d rows of %d examples", stage.name, record["rows"], record["examples"])
    kind.begin(experiment, model, dataset)
    began = time.monotonic()
    trainer = _trainer(kind, model, experiment, stage, dataset, folder, evaluator)
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    record |= {"seconds": round(time.monotonic() - began, 3), **_outcome(trainer.state)}
    if trainer.is_world_process_zero():
        model.save_pretrained(str(folder / "final"), create_model_card=False)
        write_atomic(folder / "log.json", orjson.dumps(trainer.state.log_history, option=orjson.OPT_INDENT_2))
        write_atomic(folder / "record.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))
        write_atomic(folder / "done", b"")
    wait_for_all()
    return record


def _prepared(kind: Kind, experiment: Experiment, stage: Stage, data: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """(data set, what it is made of)."""
    paths = expand(stage.data or data)
    examples, dropped = load_examples(paths, reading_of(experiment))
    require_labels(examples, stage.labels, stage.name)
    dataset = kind.dataset(examples, experiment)
    return dataset, {
        "stage": stage.name,
        "labels": stage.labels,
        "data": hashes(paths),
        "examples": len(examples),
        "rows": len(dataset),
        "dropped": {reason: count for reason, count in sorted(dropped.items()) if count},
    }


def reading_of(experiment: Experiment) -> Reading:
    """How the experiment reads its data: documents that are neither are for losses that learn from targets."""
    return Reading(
        target=experiment.target,
        positives=experiment.positives,
        relevant_from=experiment.relevant_from,
        others=experiment.soft,
        need_positive=experiment.need_positive,
        prior=experiment.prior,
        prior_temperature=experiment.temperature,
    )


def evaluator_of(kind: Kind, experiment: Experiment, dev: Collection | None) -> DevEvaluator | None:
    """The dev set's evaluator, where there is one.

    Raises:
        ConfigError: early_stop without a dev set.
        InputError: a metric that ir-measures does not know.
    """
    if dev is None:
        if experiment.early_stop:
            raise ConfigError("early_stop needs dev queries: give --dev, or set early_stop to null")
        return None
    metric = experiment.early_stop.metric if experiment.early_stop else METRIC
    return DevEvaluator(dev, metric, kind.ranker(dev))


def _trainer(
    kind: Kind,
    model: Any,
    experiment: Experiment,
    stage: Stage,
    dataset: Any,
    folder: Path,
    evaluator: DevEvaluator | None,
) -> Any:
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback

    from qrelay.training.progress import ProgressLines

    callbacks: list[Any] = [ProgressLines(stage.name)]
    if experiment.early_stop:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=experiment.early_stop.patience))
    trainer = kind.trainer(
        model,
        args=arguments(kind, experiment, stage, folder, len(dataset)),
        train_dataset=dataset,
        loss=kind.loss(experiment, model),
        evaluator=evaluator if experiment.early_stop else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(kind: Kind, experiment: Experiment, stage: Stage, folder: Path, rows: int) -> Any:
    """The trainer's own arguments; `rows`: of the stage's data.

    Raises:
        ConfigError: bf16 where the device has none; a report_to whose package is absent; with several processes,
            fewer rows than one step of all.
    """
    import torch

    require_reporters(experiment.report_to)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and rows < experiment.batch_size * processes:
        raise ConfigError(
            f"{rows} rows are less than one step of {processes} processes with batch_size {experiment.batch_size}:"
            " start fewer, or lower it"
        )
    an_epoch = max(1, math.ceil(rows / (experiment.batch_size * experiment.accumulate * processes)))
    steps = max(1, math.ceil(an_epoch * stage.epochs))
    try:
        return kind.arguments(
            output_dir=str(folder),
            num_train_epochs=stage.epochs,
            per_device_train_batch_size=experiment.batch_size,
            gradient_accumulation_steps=experiment.accumulate,
            learning_rate=stage.learning_rate or experiment.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(steps * experiment.warmup),
            weight_decay=experiment.weight_decay,
            seed=experiment.seed,
            data_seed=experiment.seed,
            bf16=experiment.bf16,
            logging_steps=max(1, steps // _LOGS_A_STAGE),
            report_to=list(experiment.report_to) or "none",
            disable_tqdm=True,
            dataloader_drop_last=False,
            dataloader_pin_memory=torch.accelerator.is_available(),
            use_cpu=not torch.accelerator.is_available(),
            save_strategy="steps",
            save_total_limit=2,
            **_saving(experiment, an_epoch),
        )
    except ValueError as error:
        raise ConfigError(f"the trainer refuses its settings: {error}") from error


def _saving(experiment: Experiment, an_epoch: int) -> dict[str, Any]:
    """When to save, and by what to stop: the best checkpoint must have been saved."""
    stop = experiment.early_stop
    if stop is None:
        return {"save_steps": max(1, math.ceil(an_epoch * experiment.checkpoint_every))}
    every = max(1, math.ceil(an_epoch * stop.every))
    return {
        "save_steps": every,
        "eval_steps": every,
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{stop.metric}",
        "greater_is_better": True,
    }


def require_reporters(names: Sequence[str]) -> None:
    """Raises ConfigError that names the packages to install."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(f"report_to {', '.join(absent)}: not installed; pip install {' '.join(absent)}")


def wait_for_all() -> None:
    """With torchrun, until every process is here."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _outcome(state: Any) -> dict[str, Any]:
    """Steps, the last losses that were logged, and the best of dev where it stopped by it."""
    found: dict[str, Any] = {"steps": state.global_step}
    losses = [entry for entry in state.log_history if "loss" in entry]
    if losses:
        aside = ("epoch", "grad_norm", "learning_rate", "step")
        found["losses"] = {name: value for name, value in losses[-1].items() if name not in aside}
        found["first_loss"] = losses[0]["loss"]
    if state.best_metric is not None:
        found["best"] = {"dev": state.best_metric, "step": state.best_global_step}
    return found


def _last_checkpoint(folder: Path) -> str | None:
    """The latest that is whole: the trainer writes a checkpoint's state last, and may be killed while it does."""
    whole = {int(path.name.partition("-")[2]): path for path in folder.glob("checkpoint-[0-9]*") if _is_whole(path)}
    return str(whole[max(whole)]) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        orjson.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True
