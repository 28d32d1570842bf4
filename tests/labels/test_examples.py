"""One assembly: whoever reads the ledger's examples sees the same ones."""

from __future__ import annotations

import json
from pathlib import Path

from qrelay.jobs.counting import count_set
from qrelay.labels.audit.audit import Request as AuditRequest
from qrelay.labels.audit.audit import audit
from qrelay.labels.examples import Example, examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.lineage.labelled import labelled
from qrelay.labels.mining.rules import EASY, MiningRules
from tests.labels.builders import graded, judged_set, later
from tests.labels.exporting import export_bytes
from tests.labels.test_export_bytes import GRADES, fill

RULES = MiningRules(relevant_grades=GRADES)
Roles = dict[str, tuple[list[str], list[str]]]


def roles(found: list[Example]) -> Roles:
    """query_id -> the passage_ids of positives and of negatives, in order."""
    return {
        each.query.query_id: ([v.passage_id for v in each.positives], [v.passage_id for v in each.negatives])
        for each in found
        if each.positives
    }


def test_exports_the_audit_and_lineage_see_the_same_examples(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", clock=lambda: later(60))
    fill(ledger)
    with ledger.snapshot() as snapshot:
        judges = {no: judge for no, judge in snapshot.judges().items() if no > 0}
        mined = roles(list(examples(snapshot, "docs", judges, RULES)))
        pairs = {each.query_id: each.pairs for each in labelled(snapshot, "docs", RULES)}
    assert len(mined) > 10
    rows = map(
        json.loads, b"".join(export_bytes(ledger, "docs", "triples", rules=RULES, unmeasured=True)).split(b"\n")[:-1]
    )
    exported = {
        row["query_id"]: tuple([each["passage_id"] for each in row[side]] for side in ("positives", "negatives"))
        for row in rows
    }
    assert exported == mined
    figures = audit(ledger, "docs", AuditRequest(), RULES)["figures"]
    for name, side in (("positives", 0), ("negatives", 1)):
        assert figures[name]["value"] == sum(len(found[side]) for found in mined.values())
        kinds = ("positive",) if side == 0 else ("hard", "easy")
        said = {
            query_id: {pair.passage_id for pair in found if pair.mined in kinds} for query_id, found in pairs.items()
        }
        assert {query_id: found for query_id, found in said.items() if found} == {
            query_id: set(found[side]) for query_id, found in mined.items()
        }
    ledger.close()


def test_the_policy_counts_the_hard_ones_of_the_example_that_the_ledger_will_give(sqlite_ledger: Ledger) -> None:
    record = judged_set("q1", outcomes=[graded(3), *[graded(0, 0.02)] * 9])
    counted = count_set(record, MiningRules())
    sqlite_ledger.commit([record])
    with sqlite_ledger.snapshot() as snapshot:
        (example,) = examples(snapshot, "docs", snapshot.judges(), MiningRules())
    assert counted.hard_examples == sum(each.reason != EASY for each in example.negatives) > 0
    assert counted.judged == len(example.verdicts)
