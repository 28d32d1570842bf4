"""Named points at which tests of crash safety kill a process. Off, and free, in production.

    faults.point("sink.commit.before")

Armed by a folder that the environment variable QRELAY_FAULTS names when the process starts: a file `<point>` in it
that holds a number n kills the process that passes the point for the n-th time since its start, by SIGKILL, as a
power cut would. The file is removed first: each fault happens once, however often the process starts again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Final

VARIABLE: Final = "QRELAY_FAULTS"
POINTS: Final = (
    "sink.commit.before",
    "sink.commit.after",
    "sink.export.middle",
    "sink.export.rename",
    "sink.trigger.decided",
    "sink.launch.after",
    "worker.publish.after",
    "worker.ack.before",
    "feed.record.before",
)
"""Every point of the pipeline. before/after: the database's commit; middle: the file is half written; rename: between
the file's rename and its manifest's; decided: a trigger is on disk, its job not launched; launch.after: the job runs
and the ledger does not know; publish.after: the result is stored and its input not acknowledged; ack.before: all is
done but the acknowledgement; feed.record: the stream has the queries and the feed's journal does not."""
REGISTRY_POINTS: Final = (
    "registry.version.staged",
    "registry.version.placed",
    "registry.event.written",
    "registry.event.linked",
)
"""Those of the model registry. staged: a model's copy is whole and not in place; placed: in place, and the history
does not know; written: an event's file is whole and has no number; linked: it has."""
MILVUS_POINTS: Final = (
    "index.milvus.created",
    "index.milvus.batch",
    "index.milvus.written",
    "index.milvus.switch",
    "index.milvus.switched",
)
"""Those of a bulk load. created: the new collection is empty; batch: some rows are acknowledged; written: all are,
not yet sealed; switch: the version is whole, the alias names the former; switched: older versions are still there."""
PUBLISH_POINTS: Final = ("sink.publish.exported", "sink.publish.pushed")
"""Those of publishing. exported: an increment is whole and not sent; pushed: the hub has it and the ledger does not
know."""
BATCH_POINTS: Final = (
    "batch.asked",
    "batch.planned",
    "batch.uploaded",
    "batch.creating",
    "batch.created",
    "batch.running",
    "batch.answers.some",
    "batch.answers.all",
    "batch.closed",
    "batch.read",
)
"""Those of a batch (`qrelay.llm.batch`). asked: requests are written down; planned: so is their batch; uploaded: the
endpoint has the file and the database does not know; creating: the intent is on disk and nothing is sent; created:
the endpoint has the batch and the database does not know; running: it does; answers: some, or all, are written down;
closed: the rest of the batch is settled and its files are still there; read: an answer is about to become a label."""
FORGET_POINTS: Final = (
    "forget.marked", "forget.queues", "forget.cache", "forget.files", "forget.ledger", "forget.journal",
    "forget.compacted",
)  # fmt: skip
"""Those of `qrelay forget`, each after a store is done: marked is the tombstone, compacted comes before the end."""

_folder: Final = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
_passed: Final[Counter[str]] = Counter()


def point(name: str) -> None:
    """Dies here if the harness asks for it; `name` is in one of the tuples above."""
    if _folder is None:
        return
    _passed[name] += 1
    armed = _folder / name
    try:
        due = _passed[name] >= int(armed.read_text())
        if due:
            armed.unlink()
    except (OSError, ValueError):
        return  # not armed, or another process took it
    if due:
        os.kill(os.getpid(), signal.SIGKILL)
