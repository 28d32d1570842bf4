"""`qrelay relabel`: a training set judged, reported on and written again, in its own format and whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.relabel import relabel
from qrelay.errors import BudgetExhausted, InputError, NotQualified
from qrelay.formats.training.detect import open_training_set
from qrelay.labels.permission import Allowed, Usage
from qrelay.labels.qualification import NO_REPORT
from qrelay.labels.relabel.relabel import Relabel
from qrelay.labels.relabel.rules import Rules, counting
from qrelay.stats.shares import GroupedShare
from qrelay.types import CandidateSet, Graded, JudgedSet, Judgment, Missing
from tests.labels.builders import CASCADE, FUSED, JUDGE, NOW

ROW = {
    "query": "copy a directory tree",
    "pos": ["copy a directory tree with copytree"],
    "neg": ["to copy a directory tree call copytree", "a lock guards data", "simmer the tomatoes"],
    "neg_id": ["f", "l", "t"],
}
ALLOWED = Usage(NO_REPORT, Allowed(unmeasured=True))


def rows(path: Path, *given: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, *arguments: str, **settings: str) -> Result:
    given = {"backend": "fake", "strategy": "graded", "data_dir": str(folder), **settings}
    env = {f"QRELAY_JUDGE__{name.upper()}": value for name, value in given.items()}
    return CliRunner().invoke(relabel, ["--data-dir", str(folder), *arguments], env=env)


def graded(p: float) -> Graded:
    return Graded(3 if p >= 0.5 else 0, 0, (1 - p, 0.0, 0.0, p), 3 * p, 0.1, p)


class Fixed:
    """A judge that knows P(relevant) by text, and misses what it does not know; it counts what it was asked."""

    def __init__(self, known: Mapping[str, float], last: int = 1000) -> None:
        self.known, self.last, self.asked = known, last, 0

    async def __call__(self, sets: Sequence[CandidateSet]) -> list[JudgedSet]:
        if self.asked >= self.last:
            raise BudgetExhausted("the run's budget is used up")
        self.asked += len(sets)
        return [JudgedSet(each, tuple(map(self._judgment, each.candidates))) for each in sets]

    def _judgment(self, candidate: Any) -> Judgment:
        p = self.known.get(candidate.passage.text)
        outcome = Missing("unparseable") if p is None else graded(p)
        return Judgment(candidate.passage.passage_id, "k", outcome, JUDGE, NOW)


async def measured(source: Path, judge: Fixed, rules: Rules | None = None, **options: Any) -> dict[str, Any]:
    found = open_training_set(str(source))
    try:
        return await Relabel(found, judge, rules or Rules(), **options).run()
    finally:
        found.close()


def test_false_negatives_are_dropped_and_scores_stand_beside(tmp_path: Path) -> None:
    source, out = rows(tmp_path / "train.jsonl", ROW), tmp_path / "clean.jsonl"
    result = run(tmp_path, str(source), "--out", str(out), "--unmeasured")
    assert result.exit_code == 0, result.output
    (row,) = read(out)
    assert (row["neg"], row["neg_id"]) == (ROW["neg"][1:], ["l", "t"])
    assert row["pos_scores"][0] > 0.5 > max(row["neg_scores"])
    assert "false negative, P" in result.output
    assert ROW["neg"][0] in result.output


def test_the_manifest_says_who_judged_what_and_by_which_rules(tmp_path: Path) -> None:
    import hashlib

    source, out = rows(tmp_path / "train.jsonl", ROW), tmp_path / "clean.jsonl"
    run(tmp_path, str(source), "--out", str(out), "--unmeasured", "--relevant-from", "0.7", "--negatives", "promote")
    manifest = json.loads((tmp_path / "clean.jsonl.manifest.json").read_text())
    assert manifest["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (manifest["rules"]["relevant_from"], manifest["rules"]["negatives"]) == (0.7, "promote")
    (judge,) = manifest["judges"].values()
    assert (judge["model"], judge["strategy"]) == ("fake-judge", "graded")
    assert manifest["negatives_promoted"] == 1
    assert manifest["qualification"]["verdict"] == "unknown"
    assert read(out)[0]["pos"] == [*ROW["pos"], ROW["neg"][0]]


def test_labels_of_a_judge_that_nobody_measured_are_not_written_without_the_flag(tmp_path: Path) -> None:
    source, out = rows(tmp_path / "train.jsonl", ROW), tmp_path / "clean.jsonl"
    result = run(tmp_path, str(source), "--out", str(out))
    assert isinstance(result.exception, NotQualified)
    assert "--unmeasured" in str(result.exception)
    assert not out.exists()
    assert run(tmp_path, str(source)).exit_code == 0  # a report is no training data


async def test_a_missing_judgment_is_missing_and_no_zero(tmp_path: Path) -> None:
    source = rows(tmp_path / "train.jsonl", {"query": "q", "pos": ["p"], "neg": ["a", "b"], "source": "one"})
    found = await measured(source, Fixed({"a": 0.9}), out=tmp_path / "out.jsonl", usage=ALLOWED)
    assert (found["false_negatives"]["judged"], found["false_negatives"]["missing"]) == (1, 1)
    assert found["false_negatives"]["missing_by_reason"] == {"unparseable": 1}
    assert found["wrong_positives"]["share"] is None
    assert read(tmp_path / "out.jsonl")[0]["neg_scores"] == [None]
    dropped = Rules(missing="drop", negatives="keep")
    await measured(source, Fixed({"a": 0.2, "p": 0.9}), dropped, out=tmp_path / "out.jsonl", usage=ALLOWED)
    assert read(tmp_path / "out.jsonl")[0]["neg"] == ["a"]


async def test_shares_are_by_source_and_a_repeated_pair_counts_once(tmp_path: Path) -> None:
    one = {"query": "q", "positive": "p", "negative": "n", "source": "a"}
    source = rows(tmp_path / "train.jsonl", one, {**one, "negative": "m"}, {**one, "query": "r", "source": "b"})
    found = await measured(source, Fixed({"p": 0.01, "n": 0.9, "m": 0.1}))
    assert (found["wrong_positives"]["judged"], found["wrong_positives"]["wrong"]) == (2, 2)
    shares = {name: each["false_negatives"]["share"] for name, each in found["by_source"].items()}
    assert shares == {"a": 0.5, "b": 1.0}
    assert [each["p_relevant"] for each in found["examples"]["false_negatives"]] == [0.9, 0.9]


async def test_examples_are_the_surest_ones(tmp_path: Path) -> None:
    texts = {f"n{place}": 0.5 + place / 100 for place in range(30)}
    source = rows(tmp_path / "train.jsonl", {"query": "q", "pos": ["p"], "neg": list(texts)})
    found = await measured(source, Fixed(texts), examples=3)
    assert [each["text"] for each in found["examples"]["false_negatives"]] == ["n29", "n28", "n27"]


async def test_a_run_that_a_budget_ends_writes_nothing_and_reports_so_far(tmp_path: Path) -> None:
    source = rows(tmp_path / "train.jsonl", *({**ROW, "query": f"q{n}"} for n in range(20)))
    found = await measured(source, Fixed({}, last=16), out=tmp_path / "out.jsonl", usage=ALLOWED)
    assert (found["rows"], "budget" in found["stopped"]) == (16, True)
    assert [each.name for each in tmp_path.iterdir()] == ["train.jsonl"]


def test_a_run_that_was_stopped_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    """A run may pay for one batch of eight rows; what an earlier one paid for comes from the cache."""
    source = rows(tmp_path / "train.jsonl", *({**ROW, "query": f"how {n}"} for n in range(20)))
    asked = (str(source), "--out", str(tmp_path / "out.jsonl"), "--unmeasured")
    codes = [run(tmp_path, *asked, budget__tokens_per_run="1").exit_code for _ in range(4)]
    assert codes == [3, 3, 0, 0]
    assert len(read(tmp_path / "out.jsonl")) == 20


def test_a_dense_score_is_the_product_of_two_vectors() -> None:
    from qrelay.labels.relabel.dense import with_dense
    from qrelay.models.embedder import load_embedder
    from qrelay.types import DENSE
    from tests.judging.samples import COPYTREE, LOCK, candidate_set

    sets = [candidate_set(COPYTREE, LOCK), candidate_set(COPYTREE, query="lock", query_id="q2")]
    model = load_embedder("hash")
    found = with_dense(sets, model)
    assert [each.query for each in found] == [each.query for each in sets]
    for one in found:
        query = model.encode([one.query.text], "query")[0]
        for each in one.candidates:
            score = each.score(DENSE)
            expected = float(query @ model.encode([each.passage.text], "document")[0])
            assert score is not None
            assert score.score == pytest.approx(expected)


def test_a_budget_that_is_used_up_is_exit_code_3(tmp_path: Path) -> None:
    source = rows(tmp_path / "train.jsonl", *({**ROW, "query": f"how {n}"} for n in range(20)))
    result = run(
        tmp_path, str(source), "--out", str(tmp_path / "o.jsonl"), "--unmeasured", budget__tokens_per_run="1"
    )
    assert result.exit_code == 3
    assert "run the same command to go on" in result.output
    assert not (tmp_path / "o.jsonl").exists()


async def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    source = rows(tmp_path / "train.jsonl", ROW)
    before = source.read_bytes()
    with pytest.raises(InputError, match="the set that is read"):
        await measured(source, Fixed({}), out=source, usage=ALLOWED)
    assert source.read_bytes() == before


async def test_a_set_of_which_nothing_is_left_is_not_written(tmp_path: Path) -> None:
    source = rows(tmp_path / "train.jsonl", {"query": "q", "pos": ["p"], "neg": ["n"]})
    with pytest.raises(InputError, match=r"nothing of .* is left"):
        await measured(source, Fixed({"p": 0.9, "n": 0.9}), out=tmp_path / "out.jsonl", usage=ALLOWED)
    assert not (tmp_path / "out.jsonl").exists()


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(InputError, match="--wrong-below"):
        Rules(relevant_from=0.3, wrong_below=0.4)


def test_a_combined_label_counts_before_a_single_judges() -> None:
    single, fused, cascade = (Judgment("0", "k", graded(0.9), judge, NOW) for judge in (JUDGE, FUSED, CASCADE))
    assert counting([single, fused, cascade]) is cascade
    assert counting([single, fused]) is fused
    missing = Judgment("0", "k", Missing("error"), JUDGE, NOW)
    assert counting([missing, single]) is single


def test_a_beir_folder_is_written_as_one(tmp_path: Path) -> None:
    from tests.formats.test_training_sets import beir

    (tmp_path / "in").mkdir()
    source, out = beir(tmp_path / "in"), tmp_path / "out"
    result = run(tmp_path, str(source), "--out", str(out), "--unmeasured")
    assert result.exit_code == 0, result.output
    again = run(tmp_path, str(out), "--json")
    assert json.loads(again.stdout)["false_negatives"]["judged"] == 3
    assert json.loads((out / "manifest.json").read_text())["layout"] == "beir"


def test_the_share_of_passages_widens_where_queries_differ() -> None:
    alike, apart = GroupedShare(), GroupedShare()
    for place in range(40):
        alike.add(2, 10)
        apart.add(10 if place < 8 else 0, 10)
    assert alike.interval().estimate == apart.interval().estimate == 0.2
    assert alike.design_effect == 1.0
    assert apart.design_effect == pytest.approx(10 * 40 / 39)
    wide, narrow = apart.interval(), alike.interval()
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_independent_units_have_wilsons_interval() -> None:
    from qrelay.stats.intervals import wilson

    share = GroupedShare()
    for place in range(50):
        share.add(place < 7, 1)
    found = share.interval()
    assert share.design_effect == pytest.approx(50 / 49)
    assert (found.low, found.high) == pytest.approx(wilson(7, 50), abs=2e-3)


def test_nothing_counted_is_no_share() -> None:
    found = GroupedShare().interval()
    assert found.estimate != found.estimate
