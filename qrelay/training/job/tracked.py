"""What a job made, in the trackers that `trainer.track` names. None of them can fail a job."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from qrelay.errors import QrelayError
from qrelay.integrations.tracking import Record, run_record, tracker, version_record
from qrelay.models.registry import Registry, kind_of
from qrelay.training.job.result import SlotResult

log = logging.getLogger(__name__)


def track(names: Sequence[str], registry: Registry, folder: Path, slots: Sequence[SlotResult]) -> None:
    """The runs in the job's folder, and the versions that they became."""
    for name in names:
        try:
            keep = tracker(name).log
            for record in _records(registry, folder, slots):
                keep(record)
        except QrelayError as error:
            again = f"qrelay track {folder}/* {registry.folder} --to {name}"
            log.warning("%s was told nothing of %s: %s; `%s` does it later", name, folder.name, error, again)


def _records(registry: Registry, folder: Path, slots: Sequence[SlotResult]) -> Iterator[Record]:
    for each in slots:
        if each.version:
            yield run_record(folder / kind_of(each.slot))
            yield version_record(registry, each.version)
