"""Every export, `mine --json` and `audit --json` of one ledger, byte for byte as when the hashes were taken.

The ledger has everything that decides what is written: single, combined and leaning judges on three scales, people,
re-judgments, a retracted judge, a second round, documents of several passages and shared ones, near-duplicates, and
negatives of every kind. What is meant to change these bytes takes the hashes anew, and says so:

    python -m tests.labels.test_export_bytes
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.labels.audit import audit
from qrelay.cli.labels.mine import mine
from qrelay.identity import judge_digest
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.splits import parse_splits
from qrelay.labels.ledger import retractions
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.mining.rounds import RoundLimits
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import (
    BM25,
    CROSS_ENCODER,
    DENSE,
    Candidate,
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    Score,
    Utility,
)
from tests.labels.builders import CASCADE, FUSED, JUDGE, LEANING, NOW, OTHER_JUDGE, later
from tests.labels.exporting import export_file

PINS = Path(__file__).with_name("export_bytes.json")
QUERIES, CANDIDATES = 24, 14
FOUR = replace(JUDGE, model="judge-four", scale="1-4")
BINARY = replace(JUDGE, model="judge-two", strategy="binary", scale="0-1")
LIKELIHOOD = replace(JUDGE, model="judge-nll", strategy="answer_nll")
RETRACTED = replace(JUDGE, model="judge-bad")
SAID = "a query about many words of which every passage has another few so that none is like the others"
SPLITS = "train=0.6,dev=0.2,test=0.2"
GRADES = {"0-1": 1, "0-3": 2, "1-4": 3, "0-9": 6}
SETTINGS = {"unmeasured": True, "unqualified": True, "options": Options(negatives=2, system=CROSS_ENCODER),
            "rules": MiningRules(relevant_grades=GRADES)}  # fmt: skip
SELECTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "people": {"overrides": True},
    "documents": {"overrides": True, "by": "document"},
    "by doc": {"splits": parse_splits(SPLITS)},
    "by attribute": {"splits": parse_splits(SPLITS, "attribute:topic"), "by": "document"},
    "increment": {"since": 2, "splits": parse_splits(SPLITS, "query"), "overrides": True},
    "one judge": {"judge": judge_digest(OTHER_JUDGE)[:12]},
    "where": {"where": "relevant and p_relevant>=0.75", "overrides": True},
    "where low": {"where": "strategy=graded and p_relevant<0.9"},
    "round": {"limits": RoundLimits(examples=6, negatives=15, order="hardest")},
    "independent": {"rules": MiningRules(without_stage_scores=True, negative_rank=3, max_negatives=2)},
    "strict": {"rules": MiningRules(relevant_grades={"0-1": 1, "0-3": 3, "1-4": 4, "0-9": 7}), "overrides": True},
    "unnamed scale": {"rules": MiningRules(), "overrides": True, "by": "document"},
}


def _passage(query: int, place: int) -> Passage:
    document = f"doc{(query * 5 + place * 3) % 40}" if place % 4 else f"shared{query % 6}"
    text = " ".join(random.Random(f"{query} {place}").choices(SAID.split(), k=24)) + f" {document}"
    copied = {10: 0, 11: 1, 8: 7}.get(place)
    if copied is not None:
        text = _passage(query, copied).text.upper() + " more" * (query % 3)
    return Passage(f"{document}#{place % 3}", document, text if place == 5 else f"Title of {document}", text)


def _outcome(draw: random.Random, judge: JudgeIdentity, place: int) -> Graded | Missing:
    if draw.random() < 0.08:
        return Missing(draw.choice(["timeout", "unparseable", "skipped"]), "no answer")
    low, high = map(int, judge.scale.split("-"))
    grades = high - low + 1
    grade = low + min(high - low, int(draw.random() ** (1.2 + place / 3) * grades))
    p = min(0.99, max(0.01, (grade - low) / (high - low) * 0.9 + draw.random() * 0.15))
    shares = tuple(0.7 if low + i == grade else 0.3 / (grades - 1) for i in range(grades))
    measured = Utility(round(2 + draw.random(), 4), 2.5) if judge == LIKELIHOOD else None
    calibration = "map" if judge in (FUSED, LEANING) else ""
    expected = low + sum(i * share for i, share in enumerate(shares))
    return Graded(grade, low, shares, expected, 0.9, p, calibration, measured)


def _judgments(draw: random.Random, query: int, passages: list[Passage], *judges: JudgeIdentity) -> list[Judgment]:
    return [
        Judgment(
            each.passage_id,
            hashlib.sha256(f"{query} {each.passage_id} {judge_digest(judge)}".encode()).hexdigest(),
            _outcome(draw, judge, place),
            judge,
            later(3600 * 24 * query),
            cached=(query + place) % 5 == 0,
            prompt_tokens=100 + place,
        )
        for judge in judges
        for place, each in enumerate(passages)
        if judge in (JUDGE, FOUR, BINARY) or draw.random() < 0.5
    ]


def _set(query: int, round_no: int = 0) -> JudgedSet:
    draw = random.Random(f"{query} {round_no}")
    passages = list({p.passage_id: p for p in (_passage(query, i) for i in range(CANDIDATES))}.values())
    if round_no:
        passages = passages[3:][::-1]
    first = {FOUR: query % 6 == 1, BINARY: query % 6 == 2, JUDGE: query % 6 not in (1, 2)}
    judges = [judge for judge, here in first.items() if here]
    others = [OTHER_JUDGE, FUSED, LEANING, CASCADE, LIKELIHOOD, RETRACTED]
    judges += [judge for number, judge in enumerate(others) if query % (number + 2) == 0]
    ranks = {system: draw.sample(range(1, 40), len(passages)) for system in (BM25, DENSE, CROSS_ENCODER)}
    candidates = [
        Candidate(each, tuple(_score(system, found[place]) for system, found in ranks.items()), place < 12)
        for place, each in enumerate(passages)
    ]
    candidates[-1] = replace(candidates[-1], passage=replace(candidates[-1].passage, text=""))
    attributes = {"topic": f"topic{query % 7}", "source": f"log{query % 3}"} if query % 4 else {}
    asked = Query(f"q{query:02}", f"What is {query % 20}?", "docs", NOW, attributes, (), round_no)
    return JudgedSet(
        CandidateSet(asked, tuple(candidates), f"v{round_no}"), tuple(_judgments(draw, query, passages[:12], *judges))
    )


def _score(system: str, rank: int) -> Score:
    if rank > 35:
        return Score(system, None, 0)
    return Score(system, round(8 - rank / 3, 5), rank)


def fill(ledger: Ledger) -> None:
    """The ledger of every hash."""
    for start in range(0, QUERIES, 8):
        ledger.commit([_set(query) for query in range(start, start + 8)])
    ledger.commit([_set(query, 1) for query in (3, 4, 10)])
    again = [_set(query) for query in (0, 5, 6, 13)]
    draw = random.Random(9)
    for number, record in enumerate(again):
        passages = [each.passage for each in record.candidate_set.candidates[:8]]
        fresh = _judgments(draw, 100 + number, passages, replace(OTHER_JUDGE, revision="r2"), FUSED)
        ledger.rejudge([replace(record, judgments=tuple(fresh))])
    said = [
        NewOverride(f"q{query:02}", passage.passage_id, grade, scale, "ana", "sure")
        for query, place, grade, scale in
        [(0, 0, 3, "0-3"), (0, 1, 0, "0-3"), (4, 2, 2, "0-3"), (7, 1, 4, "1-4"), (7, 3, 1, "1-4"), (9, 4, 1, "0-1"),
         (12, 5, 6, "0-9"), (12, 6, 5, "0-9"), (15, 0, 0, "0-3"), (16, 2, None, "0-3"), (18, 3, 2, "0-3")]
        for passage in [_set(query).candidate_set.candidates[place].passage]
        if grade is not None
    ]  # fmt: skip
    said.append(NewOverride("q20", "nobody-found-it#1", 3, "0-3", "ben"))
    with ledger.writing("record overrides") as connection:
        add(connection, "docs", said, ledger.now_us())
        retractions.retract(
            connection, judge_digest(RETRACTED), author="ana", reason="wrong prompt", now_us=ledger.now_us()
        )


def hashes(ledger: Ledger, folder: Path) -> dict[str, str]:
    """name -> sha256 of what stands under it."""
    found = {}
    for name, selection in SELECTIONS.items():
        for kind, each in FORMATS.items():
            if _refused(name, each.use, each.verdicts):
                continue
            asked = {**SETTINGS, **selection}
            out = folder / f"{name}-{kind}".replace(" ", "-")
            manifest = export_file(ledger, "docs", kind, out, **asked)
            found[f"{kind}, {name}"] = _sha256(out, manifest)
    for name, command, arguments in _commands(ledger):
        found[name] = hashlib.sha256(_output(command, *arguments).encode()).hexdigest()
    return found


def _refused(selection: str, use: str, mined: bool) -> bool:
    """Runs take no condition on labels; nothing is mined of a scale without a relevant grade."""
    return (use == "none" and "where" in SELECTIONS[selection]) or (
        selection == "unnamed scale" and (use in ("examples", "grades") or mined)
    )


def _sha256(out: Path, manifest: Mapping[str, Any]) -> str:
    """Of an export's files and manifest. Parquet counts by its rows: its bytes name the library that wrote them."""
    files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    sha = hashlib.sha256()
    for path in files:
        if path.name != "manifest.json":
            sha.update(f"{path.relative_to(out)}\n".encode() + _content(path))
    kept = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
    sha.update(json.dumps(kept).encode())
    return sha.hexdigest()


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:4] != b"PAR1":
        return data
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return f"{table.schema.remove_metadata()}\n{json.dumps(table.to_pylist())}".encode()


def _commands(ledger: Ledger) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    path = ledger.url.removeprefix("sqlite:///")
    config = Path(path).with_name("qrelay.yaml")
    config.write_text(f"sink: {{relevant_grades: {json.dumps(GRADES)}}}\n")
    given = ("--ledger", path, "--config", str(config), "--collection", "docs", "--json")
    yield "mine", mine, given
    yield "mine, people", mine, (*given, "--overrides", "--round-negatives", "12")
    yield "mine, one judge", mine, (*given, "--judge", judge_digest(JUDGE)[:12])
    for query in range(QUERIES):
        yield f"explain q{query:02}", mine, (*given, "--overrides", "--explain", f"q{query:02}")
    yield "audit", audit, given
    yield "audit, auditor", audit, (*given, "--auditor", judge_digest(OTHER_JUDGE), "--overrides", "--n", "40")
    yield "audit, one judge", audit, (*given, "--judge", judge_digest(JUDGE), "--drift-periods", "week")


def _output(command: Any, *arguments: str) -> str:
    env = {name: None for name in os.environ if name.startswith("QRELAY_")}
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False, env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


def _filled(folder: Path) -> Ledger:
    ledger = Ledger.open(folder / "ledger.sqlite", clock=lambda: later(60))
    fill(ledger)
    return ledger


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bytes")
    ledger = _filled(folder)
    made = hashes(ledger, folder)
    ledger.close()
    return made


@pytest.mark.parametrize("name", json.loads(PINS.read_text()) if PINS.exists() else [])
def test_the_bytes_are_as_they_were(found: dict[str, str], name: str) -> None:
    assert found[name] == json.loads(PINS.read_text())[name]


def test_every_output_has_a_hash(found: dict[str, str]) -> None:
    assert found.keys() == json.loads(PINS.read_text()).keys()


def test_the_ledger_has_an_example_of_every_kind(tmp_path: Path) -> None:
    ledger = _filled(tmp_path)
    counted = json.loads(_output(mine, *next(iter(_commands(ledger)))[2]))
    ledger.close()
    assert counted["examples"] > QUERIES / 3
    assert all(counted["reasons"]["negative"][each] for each in ("top_rank", "bm25_only", "dense_only", "easy"))
    assert sum(map(bool, counted["reasons"]["neither"].values())) > 6


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        opened = _filled(Path(place))
        PINS.write_text(json.dumps(hashes(opened, Path(place)), indent=2) + "\n")
