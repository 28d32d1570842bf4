"""The sink's part in publishing as a process that can be killed: `python -m tests.jobs.publishing_process LEDGER
DATA_DIR [QUERY_ID…]`.

Commits a set for each QUERY_ID, one transaction each, and takes the publisher's steps, until all is published.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from qrelay.jobs.publisher import Publisher
from qrelay.labels.exports.publishing import location_of
from qrelay.labels.ledger.export_records import standing
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from tests.labels.builders import judged_set

REPO = "team/labels"
_MOST_STEPS = 200


def made_settings(ledger: str, data_dir: Path, **publish: Any) -> SinkSettings:
    """Publishes after every label; the report is the one that `report_file` leaves in the folder, if it did."""
    report = data_dir / "qualification.json"
    return SinkSettings.model_validate({
        "ledger": ledger, "data_dir": data_dir, "qualification": str(report) if report.exists() else "",
        "publish": {"repo": REPO, "every_labels": 1, **publish},
    })  # fmt: skip


def published(ledger: Ledger) -> bool:
    """Whether the ledger knows all of it as published."""
    with ledger.snapshot() as snapshot:
        at = standing(snapshot.connection, "docs", location_of(REPO))
    return at is not None and at.published == at.change_no


def main(url: str, data_dir: str, *query_ids: str) -> None:
    settings = made_settings(url, Path(data_dir))
    ledger = Ledger.open(settings.ledger_url)
    ticks = iter(range(0, 10**9, 1000))  # every pause is over at the next step
    publisher = Publisher(ledger, settings, clock=lambda: float(next(ticks)))
    for query_id in query_ids:
        ledger.commit([judged_set(query_id, prefix=f"{query_id}-")])
        publisher.step()
    for _ in range(_MOST_STEPS):
        if published(ledger):
            return
        publisher.step()
    raise SystemExit(f"never published: {publisher.details()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
