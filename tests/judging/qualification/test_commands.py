"""`qrelay judge eval | calibrate | qualify`, run whole on the double."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import ConfigError, InputError
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.identity import judge_digest
from qrelay.judging.calibration import load_map, load_maps
from qrelay.judging.report.read import read_measured
from qrelay.labels.qualification import read_report
from tests.judging.qualification.running import JUDGES, overlapping, run


def graded_pairs(queries: int = 10) -> list[GradedPair]:
    """Six passages a query: relevant from the sixth word on, but that every fifth query turns two round."""
    return [
        overlapping(q, n, int(n > 5) if q % 5 or n not in (5, 6) else int(n == 5))
        for q in range(queries)
        for n in range(2, 8)
    ]


@pytest.fixture
def graded(tmp_path: Path) -> list[str]:
    """The options that name a slice of 60 graded pairs, without a dense system."""
    write_annotated_pairs(tmp_path / "slice.tsv", graded_pairs())
    return ["--slice", str(tmp_path / "slice.tsv"), "--relevant-from", "1", "--embedder", ""]


def strict(path: Path) -> dict[str, Any]:
    """JSON as the standard has it: without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return dict(json.loads(path.read_text(), parse_constant=refuse))


def test_the_cache_lies_in_the_data_folder_of_the_installation(
    tmp_path: Path, graded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, state = tmp_path / "here", tmp_path / "state"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "qrelay.yaml").write_text("judge: {backend: fake}")
    monkeypatch.setenv("QRELAY_DATA_DIR", str(state))
    done = CliRunner().invoke(judge_command, ["eval", *graded], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (state / "judge-cache.sqlite").exists()
    assert sorted(path.name for path in here.iterdir()) == ["qrelay.yaml"]


def test_pairs_of_queries_that_a_judge_was_shown_are_no_evidence(
    tmp_path: Path, graded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_JUDGE__SLICE", str(tmp_path / "slice.tsv"))
    one = {"wide": "graded, shots: 3"}
    result = run(tmp_path, "eval", *graded, "--json-file", tmp_path / "eval.json", judges=one)
    assert result.exit_code == 0, result.output
    assert "left out 18 pairs of queries that judge.shots shows" in result.stderr
    found = strict(tmp_path / "eval.json")
    assert (found["n"], found["queries"]) == (42, 7)


# --- eval -------------------------------------------------------------------------------------------------------


def test_eval_writes_the_figures_of_every_system_and_runs_from_the_cache(tmp_path: Path, graded: list[str]) -> None:
    out = tmp_path / "eval.json"
    result = run(tmp_path, "eval", *graded, "--json-file", out, "--cascade", "wide=likely")
    assert result.exit_code == 0, result.output
    first = strict(out)
    assert (first["n"], first["queries"], first["relevant"], first["relevant_from"]) == (60, 10, 20, 1)
    assert list(first["systems"]) == ["wide", "likely", "fused"]
    for system in first["systems"].values():
        assert 0.8 < system["auc"] < 1.0
        assert system["auc_ci"][0] <= system["auc"] <= system["auc_ci"][1]
        assert {"kappa_binary", "kappa_graded", "auc_within_query"} <= system.keys()
        assert system["tokens"] > 0
    assert first["cascades"][0]["small"] == "wide"
    assert "cascade wide -> likely" in result.output
    again = json.loads(run(tmp_path, "eval", *graded, "--json").stdout)
    assert {name: each["tokens"] for name, each in again["systems"].items()} == dict.fromkeys(again["systems"], 0)
    assert [each["auc"] for each in again["systems"].values()] == [each["auc"] for each in first["systems"].values()]


def test_eval_reads_a_beir_collection_and_counts_bm25_in_all_of_it(tmp_path: Path) -> None:
    pairs = graded_pairs(6)
    documents = {f"{p.query_id}{p.passage_id}": p.text for p in pairs} | {"beside": "nobody asked"}
    lines = {
        "corpus.jsonl": [json.dumps({"_id": i, "title": "", "text": text}) for i, text in documents.items()],
        "queries.jsonl": [
            json.dumps({"_id": i, "text": text}) for i, text in {p.query_id: p.query for p in pairs}.items()
        ],
        "qrels.tsv": ["query-id\tcorpus-id\tscore"]
        + [f"{p.query_id}\t{p.query_id}{p.passage_id}\t{p.grade}" for p in pairs],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n")
    named = ["--corpus", tmp_path, "--queries", tmp_path / "queries.jsonl", "--qrels", tmp_path / "qrels.tsv"]
    options = [*named, "--relevant-from", "1", "--embedder", "hash", "--json-file", tmp_path / "eval.json"]
    result = run(tmp_path, "eval", *options, judges={"wide": "graded"})
    assert result.exit_code == 0, result.output
    found = strict(tmp_path / "eval.json")
    assert list(found["systems"]) == ["wide", "dense", "bm25", "fused+stages"]
    assert found["systems"]["fused+stages"]["inputs"] == ["wide", "wide/best", "dense"]
    assert found["systems"]["bm25"]["auc"] > 0.8
    assert found["n"] == 36


# --- calibrate, and eval with what it wrote ---------------------------------------------------------------------


def test_calibrate_writes_maps_and_a_report_and_eval_applies_them(tmp_path: Path, graded: list[str]) -> None:
    maps, out = tmp_path / "maps.json", tmp_path / "eval.json"
    asked = [
        *graded,
        "--out",
        maps,
        "--report",
        tmp_path / "report",
        "--default",
        "likely",
        "--fuse",
        "mine=wide,wide/best",
    ]
    result = run(tmp_path, "calibrate", *asked)
    assert result.exit_code == 0, result.output
    assert "4 maps, likely by default" in result.output
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        *["confusion.png", "reliability.png", "report.html", "report.json"]
    ]
    found = load_maps(maps)
    assert sorted(found) == ["fused", "likely", "mine", "wide"]
    assert load_map(str(maps)).hash == found["likely"].hash
    assert found["mine"].listwise
    assert found["fused"].fitted_on.pairs == 60
    assert 0.8 < found["fused"].metrics["auc"] < 1.0
    result = run(tmp_path, "eval", *graded, "--calibration", maps, "--json-file", out)
    assert result.exit_code == 0, result.output
    said = strict(out)["systems"]
    assert said["likely"]["brier_after"] < said["likely"]["brier_before"]
    assert said["fused"]["brier_after"] < found["fused"].metrics["brier_after"], "applied to what it was fitted on"


def test_maps_of_other_judges_are_refused(tmp_path: Path, graded: list[str]) -> None:
    maps = tmp_path / "maps.json"
    run(tmp_path, "calibrate", *graded, "--out", maps, judges={"wide": "graded"})
    with pytest.raises(InputError, match=r"the map wide was fitted on wide \(.*\); here are wide \("):
        run(tmp_path, "eval", *graded, "--calibration", maps, judges={"wide": "binary"})
    maps.write_text(maps.read_text().replace('"threshold": 0', '"threshold": 1'))
    with pytest.raises(ConfigError, match="altered"):
        run(tmp_path, "eval", *graded, "--calibration", maps)


def test_few_grades_move_the_maps_of_another_collection(tmp_path: Path, graded: list[str]) -> None:
    """Sixteen pairs of three queries are too few for maps of their own: no query's pairs may decide of themselves."""
    maps, moved, few = tmp_path / "maps.json", tmp_path / "moved.json", tmp_path / "few.tsv"
    run(tmp_path, "calibrate", *graded, "--out", maps)
    write_annotated_pairs(few, [overlapping(q, n, int(n > 6)) for q in range(40, 43) for n in range(3, 8)])
    here = ["--slice", few, *graded[2:], "--out", moved]
    with pytest.raises(InputError, match="too few to calibrate on"):
        run(tmp_path, "calibrate", *here)
    result = run(tmp_path, "calibrate", *here, "--prior", maps)
    assert result.exit_code == 0, result.output
    assert "moved by 15 graded pairs from maps of other collections: wide, likely, fused" in result.output
    assert "cannot tell other domains from this one" in result.output
    before, after = load_maps(maps)["fused"], load_maps(moved)["fused"]
    assert after.metrics["priors"] == [before.hash]
    assert after.fitted_on.pairs == 15
    at = [[float(each.inputs[0].kind == "judge")] * 2 for each in (before,)]
    assert 0.0 < after.probability(at)[0] < before.probability(at)[0], "fewer are relevant here"


def test_without_grades_the_map_of_another_collection_is_taken_and_said_to_be_so(
    tmp_path: Path, graded: list[str]
) -> None:
    maps, taken, rest = tmp_path / "maps.json", tmp_path / "taken.json", tmp_path / "rest.tsv"
    run(tmp_path, "calibrate", *graded, "--out", maps)
    write_annotated_pairs(rest, [overlapping(q, n, None) for q in range(20, 40) for n in range(1, 6)])
    here = ["--slice", rest, "--rest", rest, *graded[2:], "--out", taken]
    result = run(tmp_path, "calibrate", *here, "--prior", maps)
    assert result.exit_code == 0, result.output
    assert "no pair is graded, so these are 3 maps of another collection as they are" in result.output
    assert "(fitted on 60 pairs of 10 queries of slice)" in result.output
    assert "domain: 20 queries here and those of slice differ" in result.output
    assert load_maps(taken) == load_maps(maps)


def test_priors_of_other_judges_are_refused(tmp_path: Path, graded: list[str]) -> None:
    maps = tmp_path / "maps.json"
    run(tmp_path, "calibrate", *graded, "--out", maps, judges={"wide": "graded"})
    result = run(tmp_path, "calibrate", *graded, "--out", maps, "--prior", maps, judges={"wide": "binary"})
    assert result.exit_code == 2
    assert "model, prompt, scale and decoding must be the same" in result.output.replace("\n", " ")


def test_a_prior_with_another_relevant_grade_is_refused_and_that_is_the_reason(
    tmp_path: Path, graded: list[str]
) -> None:
    maps, rest = tmp_path / "maps.json", tmp_path / "rest.tsv"
    run(tmp_path, "calibrate", *graded, "--out", maps)
    write_annotated_pairs(rest, [overlapping(q, n, None) for q in range(20, 30) for n in range(1, 6)])
    here = ["--slice", rest, "--rest", rest, "--relevant-from", "2", "--embedder", "", "--out", tmp_path / "new.json"]
    result = run(tmp_path, "calibrate", *here, "--prior", maps)
    assert result.exit_code == 2
    assert "relevant begins at another grade" in result.output
    assert "(1) than here (2)" in result.output.replace("\n", " ")


def test_with_few_grades_a_judge_without_a_prior_is_left_out_and_named(tmp_path: Path, graded: list[str]) -> None:
    maps, moved, few = tmp_path / "maps.json", tmp_path / "moved.json", tmp_path / "few.tsv"
    run(tmp_path, "calibrate", *graded, "--out", maps, judges={"wide": "graded"})
    write_annotated_pairs(few, [overlapping(q, n, int(n > 6)) for q in range(40, 43) for n in range(3, 8)])
    result = run(tmp_path, "calibrate", "--slice", few, *graded[2:], "--out", moved, "--prior", maps)
    assert result.exit_code == 0, result.output
    assert "15 graded pairs are too few to do without: fused, likely" in result.output
    assert list(load_maps(moved)) == ["wide"]


# --- qualify ----------------------------------------------------------------------------------------------------


def test_qualify_writes_what_the_sink_reads(tmp_path: Path, graded: list[str]) -> None:
    write_annotated_pairs(
        tmp_path / "rest.tsv", [overlapping(q, n, None) for q in range(20, 30) for n in range(2, 8)]
    )
    out = tmp_path / "qualification.json"
    result = run(tmp_path, "qualify", *graded, "--out", out, "--rest", tmp_path / "rest.tsv", "--json")
    assert result.exit_code == 0, result.output
    found = strict(out)
    assert json.loads(result.stdout.splitlines()[-1]) == found
    assert sorted(found["verdicts"]) == ["fused", "likely", "wide"]
    assert list(read_measured(out).verdicts) == list(found["verdicts"])
    report = read_report(out)
    assert sorted(report.verdicts) == sorted(found["verdicts"][name]["judge"] for name in JUDGES)
    wide = report.verdicts[found["verdicts"]["wide"]["judge"]]
    assert wide.gate.verdict == "qualified"
    assert wide.positives.model_dump() == found["verdicts"]["wide"]["positives"]
    assert found["n"] == 60, "what nobody graded is in no figure"
    share = found["relevant_share"]
    assert (share["queries_graded"], share["queries_judged_only"]) == (10, 10)
    assert share["share_relevant"] == pytest.approx(1 / 3)


def test_qualify_with_maps_speaks_of_fused_labels_by_the_hash_that_the_ledger_has(
    tmp_path: Path, graded: list[str]
) -> None:
    options = [*graded[:-1], "hash"]
    maps, out = tmp_path / "maps.json", tmp_path / "qualification.json"
    one = {"wide": "graded"}
    run(tmp_path, "calibrate", *options, "--out", maps, judges=one)
    result = run(tmp_path, "qualify", *options, "--calibration", maps, "--out", out, judges=one)
    assert result.exit_code == 0, result.output
    leaning = judge_digest(load_map(f"{maps}#fused+stages").identity)
    found = read_report(out).verdicts[leaning]
    assert found.gate.verdict == "not_qualified"
    assert "lean on the scores" in found.gate.reason
    assert "not_qualified" in result.output


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval", "--relevant-from", "1"], "give --slice FILE, or --corpus, --queries and --qrels"),
        (["eval", "--slice", "SLICE", "--queries", "SLICE", "--relevant-from", "1"], "give --slice FILE, or"),
        (["eval", "--slice", "SLICE"], "--relevant-from"),
        (["eval", "--slice", "SLICE", "--relevant-from", "1", "--embedder", "", "--fuse", "mine"], "write NAME=A,B"),
        (["calibrate", "--slice", "SLICE", "--relevant-from", "1"], "--out"),
        (
            [
                "calibrate",
                "--slice",
                "SLICE",
                "--relevant-from",
                "1",
                "--out",
                "x",
                "--embedder",
                "a",
                "--embedder",
                "b",
            ],
            "name one --embedder here",
        ),
        (["qualify", "--slice", "absent.tsv", "--relevant-from", "1", "--out", "x"], "absent.tsv"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, graded: list[str], arguments: list[str], said: str) -> None:
    given = [graded[1] if each == "SLICE" else each for each in arguments]
    result = run(tmp_path, *given)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_a_default_that_is_no_map_is_refused_before_anything_is_written(tmp_path: Path, graded: list[str]) -> None:
    out = tmp_path / "maps.json"
    result = run(tmp_path, "calibrate", *graded, "--out", out, "--default", "best", judges={"wide": "graded"})
    assert result.exit_code == 2
    assert "--default best: there are wide" in " ".join(result.output.split())
    assert not out.exists()


def test_calibrate_writes_verdicts_on_its_own_maps_from_cross_validation(tmp_path: Path, graded: list[str]) -> None:
    maps, ours, theirs = (tmp_path / name for name in ("maps.json", "ours.json", "theirs.json"))
    run(tmp_path, "eval", *graded)  # so that neither of the others asks for a token
    result = run(tmp_path, "calibrate", *graded, "--out", maps, "--qualification", ours)
    assert result.exit_code == 0, result.output
    run(tmp_path, "qualify", *graded, "--out", theirs)
    said, cross_validated = strict(ours), strict(theirs)
    assert said["systems"] == cross_validated["systems"]
    assert said["in_sample"] == []
    hashes = {name: judge_digest(each.identity) for name, each in load_maps(maps).items()}
    assert said["verdicts"]["fused"] == {**cross_validated["verdicts"]["fused"], "judge": hashes["fused"]}
    assert said["verdicts"]["wide"] == cross_validated["verdicts"]["wide"]
    assert said["verdicts"]["wide, calibrated"]["judge"] == hashes["wide"]
    assert read_report(ours).on(hashes["fused"], "negatives").verdict == "calibrated_only"


def test_lists_of_which_none_is_graded_in_whole_cost_no_verdict(tmp_path: Path, graded: list[str]) -> None:
    rest, out = tmp_path / "rest.tsv", tmp_path / "qualification.json"
    write_annotated_pairs(rest, [overlapping(q, 1, None) for q in range(10)])
    result = run(tmp_path, "qualify", *graded, "--rest", rest, "--out", out)
    assert result.exit_code == 0, result.output
    assert "the share of relevant passages is not estimated: 0 queries are graded in whole" in result.output
    assert "fused" in strict(out)["verdicts"]


def test_a_slice_that_nobody_filled_in_is_said_so(tmp_path: Path, graded: list[str]) -> None:
    write_annotated_pairs(tmp_path / "slice.tsv", [overlapping(q, 2, None) for q in range(3)])
    with pytest.raises(InputError, match="no annotated pair has a grade: fill in the column grade first"):
        run(tmp_path, "eval", *graded)


def test_too_few_relevant_pairs_are_said_so(tmp_path: Path, graded: list[str]) -> None:
    write_annotated_pairs(
        tmp_path / "slice.tsv", [overlapping(q, n, int(q < 4 and n == 7)) for q in range(8) for n in range(4, 8)]
    )
    with pytest.raises(InputError, match=r"3 relevant and 25 other graded pairs are too few .* at least 5 of each"):
        run(tmp_path, "calibrate", *graded, "--out", tmp_path / "maps.json")


def test_a_fusion_of_what_is_not_there_is_refused(tmp_path: Path, graded: list[str]) -> None:
    with pytest.raises(InputError, match="the fusion mine names dense: there are wide, likely"):
        run(tmp_path, "eval", *graded, "--fuse", "mine=wide, dense")


def test_qualify_says_where_a_map_is_of_another_domain(tmp_path: Path, graded: list[str]) -> None:
    """The other passages hold one word of the query more, each: the double finds all of them more relevant."""
    maps, out = tmp_path / "maps.json", tmp_path / "qualification.json"
    run(tmp_path, "calibrate", *graded, "--out", maps)
    result = run(tmp_path, "qualify", *graded, "--calibration", maps, "--out", out)
    assert not strict(out)["domains"]["fused"]["differs"]
    assert "another domain" not in result.output
    other = [overlapping(q, n, int(n > 6)) for q in range(20, 40) for n in range(4, 9)]
    write_annotated_pairs(tmp_path / "other.tsv", other)
    result = run(
        tmp_path, "qualify", "--slice", tmp_path / "other.tsv", *graded[2:], "--calibration", maps, "--out", out
    )
    assert result.exit_code == 0, result.output
    found = strict(out)["domains"]["fused"]
    assert found["differs"]
    assert found["p"] < 0.001
    assert "warning: The map fused is of another domain" in result.output
