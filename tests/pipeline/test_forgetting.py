"""A query is forgotten while the services run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.forgetting.reader import holding
from tests.pipeline.harness import COLLECTION, DOUBLES, IMPATIENT, Installation, write_queries

PLANT = "zqxwvk"


def test_a_query_is_forgotten_beside_running_services_and_none_of_the_others_changes(tmp_path: Path) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", 12)
    secret = {"query_id": "secret", "text": f"how does {PLANT} feel?", "reference_answers": [PLANT]}
    with queries.open("a") as more:
        more.write(json.dumps(secret))
    with Installation(tmp_path / "state", {**DOUBLES, **IMPATIENT}) as running:
        running.run("feed", str(queries), "--collection", COLLECTION, "--wait")
        before = running.export("qrels")
        told = running.run("forget", "secret", "--collection", COLLECTION, "--yes")
        assert told["reports"][0]["queries"] == 1
        assert holding(running.folder, PLANT) == []
        assert running.export("qrels") == b"".join(
            line for line in before.splitlines(keepends=True) if not line.startswith(b"secret ")
        )
        again = running.run("feed", str(queries), "--collection", COLLECTION, "--wait")
        assert (again["accepted"], again["known"], len(again["rejected"])) == (0, 12, 1)
        counted = running.run("reconcile", "--collection", COLLECTION)
        assert (counted["accepted"], counted["committed"], counted["forgotten"], counted["exit"]) == (13, 12, 1, 0)
    assert holding(tmp_path / "state", PLANT) == []
