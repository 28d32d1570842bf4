"""A sink's part in trainings on Kubernetes as a process that can be killed: `python -m tests.jobs.kubernetes_process
LEDGER DATA_DIR KUBECONFIG [QUERY_ID…]`.

Commits a set with one hard example for each QUERY_ID, each of which triggers a job; then takes the dispatcher's steps
until nothing is pending. The Jobs run on in the cluster.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qrelay.jobs.dispatcher import Dispatcher
from qrelay.labels.ledger import outbox
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.sink import load_sink
from qrelay.settings.kubernetes import KubernetesSettings
from qrelay.settings.training import TrainingSettings
from tests.labels.builders import graded, judged_set


def made_settings(ledger: str, data_dir: Path, kubeconfig: Path) -> SinkSettings:
    """A policy that each hard example satisfies, and Jobs of one image."""
    cluster = KubernetesSettings(kubeconfig=kubeconfig, image="trainer@sha256:1", ledger_secret="ledger", gpus=1)
    policy = TrainingSettings(
        enabled=True, min_new_hard_examples=1, max_running=9, command=("qrelay", "train", "--job", "{job}"),
        launcher="kubernetes", kubernetes=cluster, poll_s=0.05, unmeasured=True,
    )  # fmt: skip
    return SinkSettings(ledger=ledger, data_dir=data_dir, training=policy)


def main(ledger: str, data_dir: str, kubeconfig: str, *query_ids: str) -> None:
    settings = made_settings(ledger, Path(data_dir), Path(kubeconfig))
    core = load_sink(settings)
    dispatcher = Dispatcher(core.ledger, settings)
    for query_id in query_ids:
        core.ledger.commit([judged_set(query_id, outcomes=[graded(3), graded(0)])])
        dispatcher.step()
    while True:
        dispatcher.step()
        with core.ledger.snapshot() as snapshot:
            if not outbox.pending_triggers(snapshot.connection):
                break
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
