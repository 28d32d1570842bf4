"""The sink's part in training as a process that can be killed: `python -m tests.jobs.training_process LEDGER DATA_DIR
JOBS [QUERY_ID…]`.

Commits a set with one hard example for each QUERY_ID, each of which triggers a job that appends its name to the file
JOBS; then takes the dispatcher's steps until nothing is pending and nothing runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qrelay.jobs.dispatcher import Dispatcher
from qrelay.labels.ledger import outbox
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.sink import load_sink
from qrelay.settings.training import TrainingSettings
from tests.labels.builders import graded, judged_set


def made_settings(ledger: str, data_dir: Path, jobs: Path) -> SinkSettings:
    command = ("sh", "-c", 'echo "$0" >> "$1"; echo trained', "{name}", str(jobs))
    policy = TrainingSettings(enabled=True, min_new_hard_examples=1, max_running=9, command=command, unmeasured=True)
    return SinkSettings(ledger=ledger, data_dir=data_dir, training=policy)


def main(ledger: str, data_dir: str, jobs: str, *query_ids: str) -> None:
    settings = made_settings(ledger, Path(data_dir), Path(jobs))
    core = load_sink(settings)
    dispatcher = Dispatcher(core.ledger, settings)
    for query_id in query_ids:
        core.ledger.commit([judged_set(query_id, outcomes=[graded(3), graded(0)])])
        dispatcher.step()
    while True:
        dispatcher.step()
        with core.ledger.snapshot() as snapshot:
            pending = outbox.pending_triggers(snapshot.connection)
            running = outbox.runs(snapshot.connection, states=(outbox.RUNNING,))
        if not pending and not running:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
