"""Calibration maps: what their labels say, and what they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import ConfigError
from qrelay.judging.calibration import CalibrationMap, MapInput, load_map, load_maps, raw_score, save_maps
from qrelay.judging.qualification.fitting import fit_map
from qrelay.scales import Scale
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.types import Candidate, Graded, Missing, Passage, Score, Utility
from tests.judging.qualification.tables import graded, noisy


def fitted(*names: str, top: int = 3, relevant_from: int = 2, seed: int = 0) -> CalibrationMap:
    table = noisy(seed, top=top, relevant_from=relevant_from)
    return fit_map(table, names or ("a",), table.graded, {"auc": 0.75, "auc_ci": [0.5, math.nan]})


def candidate(number: int = 0, **scores: float | None) -> Candidate:
    found = tuple(Score(name, score, 1) for name, score in scores.items())
    return Candidate(Passage(f"d{number}", "d", "", f"text {number}"), found)


# --- one label as one number ------------------------------------------------------------------------------------


def test_a_likelihood_label_counts_by_its_gain() -> None:
    label = replace(graded(0.9), utility=Utility(nll=1.5, nll_without_passage=4.0))
    assert raw_score(label) == 2.5


def test_a_label_of_two_grades_counts_by_its_log_odds_within_12() -> None:
    scores = [raw_score(graded(p)) for p in (0.5, 0.8, 0.0, 1.0)]
    assert scores == pytest.approx([0.0, math.log(4), -12.0, 12.0])


def test_a_label_of_more_grades_counts_by_its_expected_grade() -> None:
    assert raw_score(Graded(2, 0, (0.1, 0.2, 0.6, 0.1), 1.7, 1.0, 0.7)) == 1.7


# --- what a label says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("top", "relevant_from"), [(1, 1), (3, 1), (3, 2), (3, 3)])
def test_probabilities_are_a_distribution_in_which_relevant_weighs_p(top: int, relevant_from: int, seed: int) -> None:
    made = fitted("a", "b", top=top, relevant_from=relevant_from, seed=seed)
    assert (made.min_grade, made.scale) == (0, Scale.of(0, top, relevant_from).name)
    for p in [*np.linspace(0.0, 1.0, 101), *made.cuts, np.nextafter(made.threshold, 0)]:
        label = made.graded(min(1.0, float(p)))
        assert len(label.probabilities) == top + 1
        assert min(label.probabilities) >= 0.0
        assert math.fsum(label.probabilities) == pytest.approx(1.0)
        assert math.fsum(label.probabilities[relevant_from:]) == pytest.approx(label.p_relevant)
        assert label.expected_relevance == pytest.approx(np.dot(range(top + 1), label.probabilities))
        assert (label.grade >= relevant_from) == (label.p_relevant >= made.threshold)
        assert 0 <= label.grade <= top
        assert label.calibration == made.hash


def test_a_higher_p_never_gives_a_lower_grade() -> None:
    for seed in range(4):
        made = fitted(seed=seed)
        grades = [made.graded(p / 100).grade for p in range(101)]
        assert grades == sorted(grades)
        assert len(set(grades)) > 1
        assert list(made.cuts) == sorted(made.cuts)


def test_a_grade_scale_that_starts_at_1_is_kept() -> None:
    table = noisy(top=3, relevant_from=2)
    pairs = tuple(replace(each, grade=each.grade + 1) for each in table.pairs if each.grade is not None)
    made = fit_map(replace(table, pairs=pairs, relevant_from=3), ["a"], table.graded)
    assert (made.scale, made.min_grade, made.fitted_on.relevant_from) == ("1-4", 1, 3)
    assert made.graded(0.0).grade == 1
    assert made.graded(made.threshold).grade >= 3


# --- features ---------------------------------------------------------------------------------------------------


def test_a_label_that_is_missing_makes_the_features_missing_with_its_reason() -> None:
    made = fitted("a", "b")
    rows = made.features(
        [
            ({"a": graded(0.5), "b": graded(0.8)}, candidate()),
            ({"a": graded(0.5), "b": Missing("too_long", "of b")}, candidate(1)),
            ({"a": graded(0.5)}, candidate(2)),
        ]
    )
    assert rows[0] == pytest.approx([0.0, math.log(4)])
    assert rows[1] == Missing("too_long", "of b")
    assert isinstance(rows[2], Missing)
    assert "the judge b" in rows[2].detail


def test_a_score_that_a_candidate_lacks_is_imputed_by_the_mean() -> None:
    made = fitted("a", "dense")
    assert isinstance(made.model, Logistic)
    pairs = [({"a": graded(0.7)}, candidate(dense=s) if s is not None else candidate()) for s in (0.2, None)]
    pairs.append(({"a": graded(0.7)}, candidate(dense=None)))
    known, absent, unscored = made.features(pairs)
    assert isinstance(absent, list)
    assert isinstance(unscored, list)
    assert math.isnan(absent[1])
    assert math.isnan(unscored[1])
    (p,) = made.probability([absent])
    assert p == pytest.approx(made.probability([[absent[0], made.model.means[1]]])[0])
    assert p != pytest.approx(made.probability([known])[0])  # type: ignore[list-item]


def test_the_only_input_cannot_be_imputed() -> None:
    (row,) = fitted("dense").features([({}, candidate())])
    assert isinstance(row, Missing)
    assert "no dense score" in row.detail


def test_behind_best_is_the_distance_to_the_best_of_the_list() -> None:
    made = fitted("a", "a/best", "dense/best")
    assert made.listwise
    pairs: list[tuple[Mapping[str, Graded | Missing], Candidate]]
    pairs = [({"a": graded(p)}, candidate(n, dense=s)) for n, (p, s) in enumerate([(0.5, 3.0), (0.8, 1.0)])]
    pairs.append(({"a": Missing("timeout")}, candidate(2, dense=9.0)))
    first, second, missing = made.features(pairs)
    assert first == pytest.approx([0.0, -math.log(4), 0.0])
    assert second == pytest.approx([math.log(4), 0.0, -2.0])
    assert isinstance(missing, Missing)


def test_no_features_have_no_probabilities() -> None:
    assert fitted("a", "b").probability([]) == []
    assert fitted().features([]) == []


# --- identity ---------------------------------------------------------------------------------------------------


def test_the_identity_says_whether_labels_lean_on_stage_scores() -> None:
    plain, leaning = fitted("a", "b"), fitted("a", "dense/best")
    assert plain.identity.decoding == "inputs=a,b;stage-scores=no"
    assert leaning.identity.decoding == "inputs=a,dense/best;stage-scores=yes"
    assert (plain.uses_stage_scores, leaning.uses_stage_scores) == (False, True)
    assert (plain.identity.strategy, plain.identity.scale) == ("fused", "0-3")


def test_what_decides_a_label_is_in_the_hash_and_the_metrics_are_not() -> None:
    made = fitted()
    assert replace(made, metrics={"auc": 0.1}).hash == made.hash
    changed = [
        replace(made, threshold=0.123),
        replace(made, cuts=tuple(reversed(made.cuts))),
        replace(made, inputs=(MapInput("judge", "a", "0" * 64),)),
        replace(made, cumulative=made.cumulative[::-1]),
    ]
    assert len({each.hash for each in (made, *changed)}) == 5


# --- the file ---------------------------------------------------------------------------------------------------


def saved(folder: Path) -> tuple[Path, dict[str, CalibrationMap]]:
    maps = {"a": fitted("a"), "both": fitted("a", "b", "b/best", "dense")}
    save_maps(maps, "both", folder / "maps.json")
    return folder / "maps.json", maps


def test_maps_survive_saving_and_loading_byte_for_byte(tmp_path: Path) -> None:
    path, maps = saved(tmp_path)
    loaded = load_maps(path)
    save_maps(loaded, "both", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert {name: each.hash for name, each in loaded.items()} == {name: each.hash for name, each in maps.items()}
    assert isinstance(loaded["a"].model, Isotonic)
    for p in np.linspace(0, 1, 21):
        assert loaded["both"].graded(float(p)) == maps["both"].graded(float(p))
    rows = [[0.3, -0.2, -1.0, math.nan]]
    assert loaded["both"].probability(rows) == maps["both"].probability(rows)


def test_a_reference_names_a_map_or_means_the_default(tmp_path: Path) -> None:
    path, maps = saved(tmp_path)
    assert load_map(str(path)).hash == maps["both"].hash
    assert load_map(f"{path}#a").hash == maps["a"].hash
    with pytest.raises(ConfigError, match=r"no map 'c': it holds a, both"):
        load_map(f"{path}#c")


@pytest.mark.parametrize("key", ["threshold", "min_grade", "cuts", "fitted_on"])
def test_an_altered_map_is_refused(tmp_path: Path, key: str) -> None:
    path, _ = saved(tmp_path)
    found = json.loads(path.read_text())
    changed = {"threshold": 0.01, "min_grade": 1, "cuts": [0.1, 0.2, 0.3]}
    altered = found["maps"]["both"]
    altered[key] = changed.get(key) or {**altered[key], "pairs": 9999}
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=r"map both of .* altered .* fit it again"):
        load_map(f"{path}#a")


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"format": 2, "default": "a", "maps": {}}',
        '{"format": 1, "maps": {}}',
        '{"format": 1, "default": "a", "maps": []}',
        '{"format": 1, "default": "a", "maps": {"a": {}}}',
    ],
)
def test_what_holds_no_maps_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "maps.json").write_text(text)
    with pytest.raises(ConfigError, match=r"no calibration of format 1 .*qrelay judge calibrate"):
        load_map(str(tmp_path / "maps.json"))


def test_an_absent_file_and_an_unknown_system_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*qrelay judge calibrate"):
        load_map(str(tmp_path / "absent.json"))
    odd = replace(fitted("dense"), inputs=(MapInput("stage", "telepathy"),))
    save_maps({"odd": odd}, "odd", tmp_path / "maps.json")
    with pytest.raises(ConfigError, match="unknown retrieval systems telepathy"):
        load_maps(tmp_path / "maps.json")
