"""What a run leaves: the queries as `qrelay feed` takes them, a manifest beside them, and known-item labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qrelay.files import AtomicFiles
from qrelay.identity import digest
from qrelay.judging.querygen.journal import KEPT, MISSING, REJECTED, Journal, Outcome
from qrelay.judging.querygen.passages import Sample

KNOWN_ITEM: Final = (
    "known-item labels: the document that a question was written from is relevant (1), every other document is "
    "unjudged, not irrelevant; measures are lower bounds, and questions follow their document's wording"
)


def manifest_path(out: Path) -> Path:
    """The manifest of the queries in `out`."""
    return out.with_name(f"{out.name}.manifest.json")


def journal_path(out: Path) -> Path:
    """Where the run's outcomes are kept."""
    return out.with_name(f"{out.name}.journal.jsonl")


def query_line(outcome: Outcome, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The query. Its id depends on passage, question and prompt alone, so that the same one is never fed twice."""
    return {
        "query_id": f"gen-{digest(outcome.passage_id, outcome.question, identity['prompt'])[:16]}",
        "text": outcome.question,
        "attributes": {
            "source_passage": outcome.passage_id,
            "source_doc": outcome.doc_id,
            "generator": identity["generator"],
            "prompt": identity["prompt"],
        },
    }


def manifest(
    sample: Sample, journal: Journal, identity: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Counts by outcome and reason, and all that decides them."""
    counts = {kind: len(journal.of(kind)) for kind in (KEPT, REJECTED, MISSING)}
    asked = journal.outcomes.values()
    seconds = sum(each.seconds for each in asked)
    return {
        "format": 1,
        **identity,
        **more,
        "passages": {"read": sample.read, "left_out": dict(sorted((+sample.unsuitable).items())),
                     "sampled": len(sample.passages)},
        "asked": len(asked),
        **counts,
        "rejected_by_reason": _reasons(journal.of(REJECTED)),
        "missing_by_reason": _reasons(journal.of(MISSING)),
        "seconds_a_passage": round(seconds / len(asked), 3) if asked else None,
        "seconds_a_kept_query": round(seconds / counts[KEPT], 3) if counts[KEPT] else None,
    }  # fmt: skip


def _reasons(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(sorted(Counter(each.reason for each in outcomes).items()))


def write_outputs(
    out: Path, journal: Journal, identity: Mapping[str, Any], facts: dict[str, Any], qrels: Path | None
) -> None:
    """Queries, labels (BEIR's TSV) and manifest, each whole or absent. Raises OSError: a folder cannot be written."""
    lines = [query_line(each, identity) for each in journal.of(KEPT)]
    rows = [f"{line['query_id']}\t{line['attributes']['source_doc']}\t1\n" for line in lines]
    with AtomicFiles() as files:
        files.open(out).write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        if qrels:
            files.open(qrels).write("".join(["query-id\tcorpus-id\tscore\n", *rows]).encode())
            facts["qrels"] = {"file": qrels.name, "labels": KNOWN_ITEM}
        files.open(manifest_path(out)).write((json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
        files.commit()
