"""Files of judging and measuring: calibration maps, journals, manifests of exports, evaluations, benchmarks."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from qrelay.bench.report import as_json
from qrelay.bench.report import read as bench_report
from qrelay.bench.running import json_lines
from qrelay.bench.trace import read_trace
from qrelay.cli.eval.evaluate import _read as read_evaluation_file
from qrelay.judging.asking import Asker
from qrelay.judging.calibration import CalibrationMap, FittedOn, MapInput, load_map, save_maps
from qrelay.judging.domain import Domain, likeness
from qrelay.judging.querygen.journal import Journal as QueryJournal
from qrelay.judging.querygen.journal import Outcome
from qrelay.labels.exports.files import open_output
from qrelay.labels.qualification import read_report
from qrelay.llm.exchange import Chat, Prompt
from qrelay.llm.fake import FakeBackend
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.training.evaluation.evaluate import compared
from qrelay.training.evaluation.evaluate import from_json as evaluation_of
from qrelay.training.evaluation.manifests import manifest_of
from qrelay.training.evaluation.manifests import relevant_from as told_relevant_from
from qrelay.types import Missing
from tests import samples
from tests.bench.made import report
from tests.fuzz.formats import _export
from tests.fuzz.parser import Parser, beside, constant, file, written
from tests.labels.test_qualification import report_file


def _map(folder: Path) -> None:
    inputs = (MapInput("judge", "small", "a" * 64), MapInput("stage", "bm25", behind_best=True))
    cumulative = tuple(Isotonic((0.0, 1.0), ends) for ends in ((0.1, 0.95), (0.05, 0.9), (0.02, 0.6)))
    fitted = FittedOn("0" * 64, 100, 10, 40, relevant_from=2)
    linear = CalibrationMap(
        inputs,
        Logistic((1.0,) * 2, (1.0,) * 2, (1.0,) * 2, 0.0),
        "0-3",
        0,
        (0.2, 0.45, 0.8),
        cumulative,
        0.45,
        fitted,
        {},
        Domain("docs", ((2.0, 0.5, 3.0, -1.0, 0.5, 0.0),) * 10),
    )
    rising = replace(linear, inputs=inputs[:1], model=cumulative[0])
    save_maps({"both": linear, "one": rising}, "both", folder / "maps.json")


def _use_map(path: Path) -> None:
    found = load_map(str(path))
    f"{found.identity} {found.listwise} {found.uses_stage_scores}".encode()
    try:
        load_map(f"{path}#one")
    finally:
        candidates = samples.candidates(2)
        rows = found.features([({"small": _GRADED}, each) for each in candidates])
        for p in found.probability([row for row in rows if not isinstance(row, Missing)]):
            found.graded(p)
        likeness(found.domain, [each.label for each in found.inputs], found.domain.profiles)


_GRADED: Final = samples.judged_set().judgments[0].outcome


def _query_journal(folder: Path) -> None:
    with QueryJournal(folder / "j.jsonl", {"seed": 1}, resume=False) as journal:
        journal.append(
            [Outcome("d1#0", "d1", "kept", question="how?", rank=2), Outcome("d2#0", "d2", "missing", "timeout")]
        )


def _resume(path: Path) -> None:
    with QueryJournal(path, {"seed": 1}, resume=True) as journal:
        journal.append([Outcome("d3#0", "d3", "kept", question="\u00fc?")])
        journal.of("kept")


def _answer_journal(folder: Path) -> None:
    async def ask() -> None:
        with Asker(FakeBackend(), folder / "j.jsonl") as asker:
            await asker.generate([Chat((("user", "Sort lists. How?"),), 9)])
            await asker.score([Prompt("judge", "how", "so", ("NO", "YES"), "how", "so")])

    asyncio.run(ask())


def _answered(path: Path) -> None:
    with Asker(FakeBackend(), path) as asker:
        assert asker.asked == 0


def _told_by_manifest(path: Path) -> None:
    qrels = path.with_name("qrels.tsv")
    qrels.write_text("q1 0 d1 1\n")
    manifest_of(qrels)
    told_relevant_from(None, qrels)


def _told_by_folder(folder: Path) -> None:
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    told_relevant_from(2, folder / "qrels" / "test.tsv")
    open_output(folder, folder=True).abandon()


def _evaluation(path: Path) -> None:
    """As `qrelay eval --against` reads it."""
    found = evaluation_of(read_evaluation_file(path))
    compared(found, found)
    found.as_json()


EVALUATION: Final = {
    "system": "bm25",
    "query_ids": ["q1", "q2"],
    "per_query": {"nDCG@10": [0.4, 0.6]},
    "first": {"q1": "d1"},
    "collection": "c",
}


_MANIFEST: Final = written("data.jsonl.manifest.json", _export("qrels"))


PARSERS: Final = (
    Parser("calibration maps", "json", written("maps.json", _map), file("maps.json", _use_map)),
    Parser(
        "qualification report", "json", written("qualification.json", report_file), file("report.json", read_report)
    ),
    Parser("journal of answers", "jsonl", written("j.jsonl", _answer_journal), file("j.jsonl", _answered)),
    Parser("query generation's journal", "jsonl", written("j.jsonl", _query_journal), file("j.jsonl", _resume)),
    Parser("export's manifest beside a file", "json", _MANIFEST, file("qrels.tsv.manifest.json", _told_by_manifest)),
    Parser(
        "export's manifest in a folder", "json", _MANIFEST, beside(lambda _: None, "manifest.json", _told_by_folder)
    ),
    Parser("evaluation", "json", constant(json.dumps(EVALUATION)), file("evaluation.json", _evaluation)),
    Parser("bench report", "json", lambda _: [as_json(report()).encode()], file("report.json", bench_report)),
    Parser("recorded arrivals", "lines", constant("12.5\n2026-01-31T12:00:00Z\n", "1\n2e0\n"), file("a", read_trace)),
    Parser("log lines", "jsonl", constant('{"level": "INFO", "message": "x"}\nTraceback\n'), file("log", json_lines)),
)
