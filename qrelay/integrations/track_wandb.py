"""Weights & Biases: a record is a run, its documents an artefact; of a version the artefact refers to the registry's
folder, and has the alias `serving` while it serves. `pip install 'qrelay[wandb]'`."""

from __future__ import annotations

import json
import os
import re
from typing import Final

from qrelay.integrations import library
from qrelay.integrations.tracking import VERSION, Record, refusals

with library("wandb"):
    import wandb

PROJECT: Final = "qrelay"
"""Where WANDB_PROJECT names none."""
_NOT_IN_NAMES: Final = re.compile(r"[^\w\-.]")


def opened() -> WandbTracker:
    """By W&B's own variables."""
    return WandbTracker()


class WandbTracker:
    """See `qrelay.integrations.tracking.Tracker`."""

    def log(self, record: Record) -> None:
        """A run with the record's identity for its id; of one that is there the curve stays, the rest is new."""
        with refusals("W&B"):
            with wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT, id=record.identity, name=record.name,
                job_type=record.kind, config=dict(record.params), resume="allow", reinit="create_new",
            ) as run:  # fmt: skip
                run.config.update(dict(record.tags), allow_val_change=True)
                for step, metrics in () if run.resumed else record.curve:
                    run.log({"step": step, **metrics})
                run.summary.update(dict(record.metrics))
                run.log_artifact(_artifact(record), aliases=["latest", *["serving"] * record.serving])


def _artifact(record: Record) -> wandb.Artifact:
    name = _NOT_IN_NAMES.sub("-", record.slot or record.name)[:128]
    artifact = wandb.Artifact(name, "model" if record.kind == VERSION else record.kind, metadata=dict(record.tags))
    for file, document in record.documents.items():
        with artifact.new_file(file) as out:
            json.dump(document, out)
    if record.model:
        artifact.add_reference(record.model.resolve().as_uri(), "model", checksum=False)
    return artifact
