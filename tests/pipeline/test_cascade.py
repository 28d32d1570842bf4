"""The cascade live: two real models, calibrated and served by the commands that a user runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.judging.calibration import load_map
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.reader import Label
from tests.pipeline.harness import DOUBLES, Installation, called

ENTRIES: Final = {
    "How do I copy a directory tree?": "shutil.copytree recursively copies an entire directory tree.",
    "How do I parse a JSON string?": "json.loads deserialises a JSON string to a Python object.",
    "How do I shuffle a list in place?": "random.shuffle shuffles the sequence x in place.",
    "How do I wait for a thread to end?": "Thread.join waits until the thread terminates.",
    "How do I compress a file with gzip?": "gzip.open opens a gzip-compressed file in binary or text mode.",
    "How do I find the square root of a number?": "math.sqrt returns the square root of x.",
    "How do I split a string at blanks?": "str.split returns a list of the words in the string.",
    "How do I read an environment variable?": "os.getenv returns the value of the environment variable key.",
}
HELD_OUT: Final = 2
"""The last questions, which are judged; the map is fitted on the others."""
SMALL: Final = {"backend": "transformers", "model": "smollm2-135m-instruct", "strategy": "query_likelihood"}
LARGE: Final = {"backend": "llamacpp", "model": "qwen2.5-coder-0.5b-instruct", "strategy": "binary"}
MAX_ERROR: Final = 0.2


def graded_pairs() -> list[GradedPair]:
    """Each question with its own entry and with the one after it."""
    asked = list(ENTRIES)[:-HELD_OUT]
    return [
        GradedPair(f"q{n}", f"d{m}", int(n == m), asked[n], "", ENTRIES[asked[m]])
        for n in range(len(asked))
        for m in (n, (n + 1) % len(asked))
    ]


def candidate_lines() -> str:
    """The held-out questions, with all entries as candidates."""
    found = [{"doc_id": f"d{n}", "text": text, "score": -n} for n, text in enumerate(ENTRIES.values())]
    asked = [*enumerate(ENTRIES)][-HELD_OUT:]
    rows = ({"query_id": f"q{n}", "query": query, "candidates": found} for n, query in asked)
    return "".join(json.dumps(row) + "\n" for row in rows)


def by_judge(folder: Path) -> dict[str, dict[tuple[str, str], Label]]:
    """Strategy -> (query, passage) -> the label that the ledger keeps."""
    ledger = Ledger.open(folder / "ledger.sqlite")
    try:
        with ledger.snapshot() as snapshot:
            strategies = {number: judge.identity.strategy for number, judge in snapshot.judges().items()}
            found: dict[str, dict[tuple[str, str], Label]] = {each: {} for each in strategies.values()}
            for query in snapshot.labelled_queries("docs"):
                for label in query.labels:
                    found[strategies[label.judge_no]][query.query_id, label.passage_id] = label
            return found
    finally:
        ledger.close()


def test_a_small_real_judge_answers_what_it_is_sure_of_and_a_larger_one_the_rest(tmp_path: Path) -> None:
    annotated, maps = tmp_path / "slice.tsv", tmp_path / "maps.json"
    write_annotated_pairs(annotated, graded_pairs())
    environ = {name: value for name, value in DOUBLES.items() if name != "QRELAY_JUDGE__BACKEND"}
    fitted = called("judge", "calibrate", "--slice", str(annotated), "--relevant-from", "1", "--embedder", "",
                    "--out", str(maps), environ={**environ, "QRELAY_DATA_DIR": str(tmp_path / "data"),
                    "QRELAY_JUDGE__JUDGES": json.dumps({"small": SMALL})})  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    judged_live(tmp_path / "data", maps, environ)


def judged_live(data: Path, maps: Path, environ: dict[str, str]) -> None:
    """The held-out questions, fed to an installation whose judge is the cascade; an audit sends up some of what the
    small judge is sure of, so that both sides answer whatever the processor makes of the last digits."""
    cascade = {"order": ["small", "large"], "calibration": f"{maps}#small", "max_error": MAX_ERROR, "audit": 0.3}
    environ |= {"QRELAY_JUDGE__JUDGES": json.dumps({"small": SMALL, "large": LARGE}),
                "QRELAY_JUDGE__CASCADE": json.dumps(cascade)}  # fmt: skip
    with Installation(data, environ, "--only", "judge", "--only", "sink") as installation:
        report = installation.run("feed", "-", "--collection", "docs", "--format", "candidates", "--wait",
                                  stdin=candidate_lines())  # fmt: skip
    assert (report["committed"], report["dead"]) == (HELD_OUT, 0)
    labels = by_judge(data)
    small, large, whole = (labels[each] for each in ("query_likelihood", "binary", "cascade"))
    assert len(small) == len(whole) == HELD_OUT * len(ENTRIES), "the small judge reads every pair"
    assert 0 < len(large) < len(small), "some pairs are escalated, some are not"
    fitted = load_map(f"{maps}#small").hash
    for pair, label in whole.items():
        p = label.p_relevant
        assert p is not None, pair
        if pair in large:
            assert p == large[pair].p_relevant
        else:
            assert min(p, 1 - p) <= MAX_ERROR and label.calibration == fitted
