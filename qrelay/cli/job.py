"""What `qrelay train --job FILE` does: run the job, say how it goes, end with a code that scripts can trust.

Exit codes: 0 the job ended (its versions passed or not); 1 failed, run it again; 5 not enough data, nothing was
published; 78 settings or models are wrong.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from qrelay.cli.offline import stay_offline
from qrelay.exitcodes import EXIT_NOT_ENOUGH, EXIT_OK
from qrelay.training.job.result import JobResult


def run_job_file(
    file: Path, config: Path | None, *, unmeasured: bool = False, unqualified: bool = False
) -> JobResult:
    """Runs the job of a job.json; what happens goes to standard output, the job's log. `unmeasured` and
    `unqualified` are allowed beside what the file allows. Raises as `run_job` does."""
    stay_offline()
    from qrelay.training.job.job import read_job
    from qrelay.training.job.run import run_job
    from qrelay.training.settings import trainer_settings

    _log()
    job = read_job(file)
    job = replace(job, unmeasured=job.unmeasured or unmeasured, unqualified=job.unqualified or unqualified)
    settings = trainer_settings(config, job.data_dir)
    result = run_job(job, settings, config, say=lambda text: click.echo(text))
    for each in result.slots:
        click.echo(f"{each.slot}: {each.outcome}{f' {each.version}' if each.version else ''}: {each.why}")
    return result


def _log() -> None:
    """Training's progress as lines in the job's log, and the libraries' bars off."""
    import logging
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    log = logging.getLogger("qrelay.train")
    log.handlers[:] = [logging.StreamHandler(sys.stdout)]
    log.propagate = False
    log.setLevel(logging.INFO)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def end(result: JobResult) -> None:
    """Ends the process with the result's exit code."""
    sys.exit(EXIT_NOT_ENOUGH if result.trained_nothing else EXIT_OK)
