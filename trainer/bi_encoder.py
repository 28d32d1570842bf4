"""Training a bi-encoder, stage after stage, with sentence-transformers' own trainer.

A run's folder: `model/` (the result), `checkpoints/<stage>/` (what a killed run goes on from), `log.json` a stage. A
stage whose `done` mark is there is not run again; inside a stage the trainer resumes from its last checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.models.catalogue import resolve
from trainer.data import as_dataset, expand, read_examples, rows_of
from trainer.experiment import Experiment, Stage
from trainer.losses.combined import CachedRetrievalLoss, RetrievalLoss
from trainer.losses.terms import LossRules

_LOGS_A_STAGE: Final = 50


def train_bi_encoder(experiment: Experiment, data: Sequence[str], out: Path) -> Path:
    """Trains and returns `out/model`. `data`: globs for stages that name none. Killed at any moment, it goes on where
    it was when it is called again with the same arguments.

    Raises:
        ConfigError: no data, or none that teaches; LoRA without its library.
        ModelError: no such model.
    """
    result = out / "model"
    if (result / "modules.json").exists():
        return result
    model = _load(experiment, str(resolve(experiment.model).path))
    base = _weights(model) if experiment.merge < 1 else {}
    for stage in experiment.stages:
        _run_stage(model, experiment, stage, data, out)
    _merge(model, base, experiment.merge)
    model.save_pretrained(str(out / "model.part"), create_model_card=False)
    (out / "model.part").rename(result)
    return result


def _load(experiment: Experiment, path: str) -> Any:
    from sentence_transformers import SentenceTransformer

    attention = {} if experiment.attention == "auto" else {"attn_implementation": experiment.attention}
    model = SentenceTransformer(path, local_files_only=True, model_kwargs=attention)
    model.max_seq_length = experiment.max_length
    return model


def _run_stage(model: Any, experiment: Experiment, stage: Stage, data: Sequence[str], out: Path) -> None:
    from sentence_transformers import SentenceTransformerTrainer

    folder = out / "checkpoints" / stage.name
    if (folder / "done").exists():
        model.load_state_dict(_saved(folder / "final"))
        return
    examples = read_examples(expand(stage.data or data))
    rows = rows_of(examples, documents=experiment.documents, max_positives=experiment.max_positives)
    dataset = as_dataset(rows, seed=experiment.seed)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(experiment, stage, folder, len(dataset)),
        train_dataset=dataset,
        loss=loss_of(experiment, model),
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    model.save_pretrained(str(folder / "final"), create_model_card=False)
    write_atomic(folder / "log.json", orjson.dumps(trainer.state.log_history, option=orjson.OPT_INDENT_2))
    write_atomic(folder / "done", b"")


def loss_of(experiment: Experiment, model: Any) -> Any:
    """The weighted sum that the experiment names, with GradCache where it asks for it."""
    rules = LossRules(experiment.temperature, experiment.teacher_temperature, experiment.margin)
    if experiment.mini_batch_size:
        return CachedRetrievalLoss(model, experiment.terms, rules, mini_batch_size=experiment.mini_batch_size)
    return RetrievalLoss(model, experiment.terms, rules)


def arguments(experiment: Experiment, stage: Stage, folder: Path, rows: int) -> Any:
    """The trainer's own arguments; `rows`: of the stage's data."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    an_epoch = max(1, math.ceil(rows / (experiment.batch_size * experiment.accumulate)))
    steps = max(1, math.ceil(an_epoch * stage.epochs))
    return SentenceTransformerTrainingArguments(
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
        save_strategy="steps",
        save_steps=max(1, math.ceil(an_epoch * experiment.checkpoint_every)),
        save_total_limit=2,
        logging_steps=max(1, steps // _LOGS_A_STAGE),
        report_to=list(experiment.report_to) or "none",
        disable_tqdm=True,
        dataloader_drop_last=False,
    )


def _last_checkpoint(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def _weights(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _saved(folder: Path) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    return _weights(SentenceTransformer(str(folder), local_files_only=True))


def _merge(model: Any, base: dict[str, Any], share: float) -> None:
    """share * trained + (1 - share) * base, weight by weight (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903)."""
    if not base:
        return
    trained = model.state_dict()
    if trained.keys() != base.keys():
        raise ConfigError("the trained model has other weights than its base: set merge to 1")
    mixed = {
        name: tensor * share + base[name].to(tensor.device) * (1 - share) if tensor.is_floating_point() else tensor
        for name, tensor in trained.items()
    }
    model.load_state_dict(mixed)
