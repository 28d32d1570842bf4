"""The training policy of a scene: it fires often, and its command appends the job's name to a file."""

from __future__ import annotations

import json
from pathlib import Path

from qrelay.labels.settings import SinkSettings

_MIN_JUDGED = 400
"""Judged pairs of one trigger: 16 queries of 25."""


def available() -> bool:
    """Whether this sink has triggers."""
    return "training" in SinkSettings.model_fields


def jobs_file(folder: Path) -> Path:
    """Where the command writes a line a run."""
    return folder / "jobs.txt"


def training_environ(folder: Path) -> dict[str, str]:
    """The settings of the policy and its launcher; none where there are no triggers."""
    if not available():
        return {}
    command = ["sh", "-c", f'echo "$0" >> {jobs_file(folder)}', "{name}"]
    return {
        "QRELAY_SINK__TRAINING__ENABLED": "true",
        "QRELAY_SINK__TRAINING__MIN_JUDGED": str(_MIN_JUDGED),
        "QRELAY_SINK__TRAINING__COMMAND": json.dumps(command),
        "QRELAY_SINK__TRAINING__POLL_S": "0.3",
        "QRELAY_SINK__TRAINING__UNMEASURED": "true",
    }
