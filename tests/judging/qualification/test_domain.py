"""A map knows what its queries looked like: it is quiet among its own, and speaks up elsewhere."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import ConfigError
from qrelay.judging.calibration import load_map, save_maps
from qrelay.judging.domain import LEAST_PASSAGES, LEAST_QUERIES, Domain, Profile, Watch, likeness, profile
from qrelay.judging.qualification.fitting import domain_of, fit_map
from qrelay.judging.qualification.systems import evaluate
from tests.judging.qualification.tables import noisy

NAMES = ["dense", "judge"]


def lists(seed: int, queries: int, height: float = 0.0, spread: float = 1.0) -> list[list[list[float]]]:
    """Queries of eight passages, each with two inputs; queries differ in level as real ones do."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(height, 0.5, (queries, 1, 2))
    return [each.tolist() for each in levels + rng.normal(0.0, spread, (queries, 8, 2))]


def profiles(rows: list[list[list[float]]]) -> tuple[Profile, ...]:
    return tuple(found for each in rows if (found := profile(each)))


def test_halves_of_one_collection_are_alike() -> None:
    found = [
        likeness(Domain("one", profiles(lists(seed, 25))), NAMES, profiles(lists(seed + 1000, 25)))
        for seed in range(200)
    ]
    assert sum(each is not None and each.differs for each in found) <= 2


@pytest.mark.parametrize(("height", "spread", "figure"), [(1.5, 1.0, "mean of"), (0.0, 2.0, "spread of")])
def test_queries_of_another_level_or_spread_are_not_and_the_figure_is_named(
    height: float, spread: float, figure: str
) -> None:
    found = likeness(
        Domain("one", profiles(lists(0, 40))), NAMES, profiles(lists(1, LEAST_QUERIES * 2, height, spread))
    )
    assert found is not None
    assert found.differs
    assert "one differ" in str(found)
    assert figure in str(found) or "best of" in str(found)


def test_few_queries_say_nothing() -> None:
    many, few = profiles(lists(0, LEAST_QUERIES)), profiles(lists(1, LEAST_QUERIES - 1))
    assert likeness(Domain("", few), NAMES, many) is None
    assert likeness(Domain("", many), NAMES, few) is None
    assert profile([[0.0, 1.0]] * (LEAST_PASSAGES - 1)) is None


def test_last_digits_are_no_difference_where_figures_are_few_steps_or_one() -> None:
    grades = [[[float((q + n) % 3), 2.0] for n in range(8)] for q in range(40)]
    moved = [[[a + 1e-5, b + 1e-5] for a, b in each] for each in grades]
    found = likeness(Domain("", profiles(grades)), NAMES, profiles(moved))
    assert found is not None
    assert not found.differs


def test_where_every_figure_is_the_same_nothing_differs() -> None:
    same = profiles([[[2.0, 2.0]] * 8] * 20)
    found = likeness(Domain("", same), NAMES, same)
    assert found is not None
    assert found.p == 1.0


def test_a_score_that_is_missing_throughout_is_left_out() -> None:
    without = [[[float("nan"), row[1]] for row in each] for each in lists(1, 20)]
    found = likeness(Domain("", profiles(lists(0, 20))), NAMES, profiles(without))
    assert found is not None
    assert not found.differs


def test_a_map_keeps_its_domain_and_its_hash_is_of_what_decides_labels(tmp_path: Path) -> None:
    table = replace(noisy(queries=12), collection="mine")
    fitted = fit_map(table, ["a", "dense"], table.graded, domain=domain_of(table, ["a", "dense"]))
    assert len(fitted.domain.profiles) == 12
    assert replace(fitted, domain=Domain()).hash == fitted.hash
    save_maps({"fused": fitted}, "fused", tmp_path / "maps.json")
    assert load_map(str(tmp_path / "maps.json")) == fitted


def test_maps_of_earlier_versions_have_none_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    table = noisy()
    fitted = fit_map(table, ["a", "dense"], table.graded, domain=domain_of(table, ["a", "dense"]))
    save_maps({"fused": fitted}, "fused", tmp_path / "maps.json")
    found = json.loads((tmp_path / "maps.json").read_text())
    domain = found["maps"]["fused"].pop("domain")
    (tmp_path / "old.json").write_text(json.dumps(found))
    assert not load_map(str(tmp_path / "old.json")).domain.known
    damaged = [{"profiles": [[1.0]]}, {"profiles": 3}, {"profiles": [["x"] * 6]}, domain | {"other": 1}]
    for broken in damaged:
        found["maps"]["fused"]["domain"] = broken
        (tmp_path / "broken.json").write_text(json.dumps(found))
        with pytest.raises(ConfigError):
            load_map(str(tmp_path / "broken.json"))


def test_an_evaluation_with_fitted_maps_says_how_like_its_queries_are() -> None:
    home, near, far = (noisy(seed, queries=24) for seed in (1, 2, 3))
    far = replace(far, stages={"dense": far.stages["dense"] + 5.0})
    inputs = ["a", "b", "a/best", "b/best", "dense"]
    maps = {"fused+stages": fit_map(home, inputs, home.graded, domain=domain_of(home, inputs))}
    quiet, loud = (evaluate(table, {}, maps).likenesses["fused+stages"] for table in (near, far))
    assert quiet is not None
    assert loud is not None
    assert not quiet.differs
    assert loud.differs
    assert "dense" in loud.what


def test_a_judge_that_labels_other_queries_says_so_once_and_in_its_info(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(Domain("home", profiles(lists(0, 40))), NAMES)
    with caplog.at_level(logging.WARNING):
        for rows in lists(1, 40):
            watch.add("alike", rows)
        assert not caplog.records
        for rows in lists(2, 30, height=2.0):
            watch.add("elsewhere", rows)
    (record,) = caplog.records
    assert "of elsewhere, 20 queries here and those of home differ" in record.getMessage()
    details = watch.details()
    assert "no difference shows" in details["calibration's domain: alike"]
    assert "differ" in details["calibration's domain: elsewhere"]


def test_a_map_without_a_domain_says_that_nobody_watches() -> None:
    watch = Watch(Domain(), NAMES)
    for rows in lists(1, 40):
        watch.add("any", rows)
    assert list(watch.details()) == ["calibration's domain"]
