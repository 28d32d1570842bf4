"""What a job made, in the trackers that `trainer.track` names. None of them can fail a job."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from qrelay.errors import QrelayError
from qrelay.integrations.tracking import run_record, tracker, version_record
from qrelay.models.registry import Registry, kind_of
from qrelay.training.job.result import SlotResult

log = logging.getLogger(__name__)


def track(names: Sequence[str], registry: Registry, folder: Path, slots: Sequence[SlotResult]) -> None:
    """The runs in the job's folder, and the versions that they became."""
    runs = {each.version: folder / kind_of(each.slot) for each in slots if each.version}
    for name in names:
        try:
            keep = tracker(name).log
            for version, run in runs.items():
                keep(run_record(run))
                keep(version_record(registry, version))
        except QrelayError as error:
            again = shlex.join(["qrelay", "track", *map(str, runs.values()), str(registry.folder), "--to", name])
            log.warning("%s was told nothing of %s: %s; `%s` does it later", name, folder.name, error, again)
