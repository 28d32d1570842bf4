"""Experiments: inheritance, overrides, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrelay.errors import ConfigError
from qrelay.training.experiment import load_experiment, shipped


def written(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_experiment_holds(name: str) -> None:
    assert load_experiment(name).terms


def test_the_shipped_ones_are_those_that_are_promised() -> None:
    promised = "kl_margin kl_only margin_only infonce_only infonce_kl full_modular sum_marginal lsepair cross_encoder"
    assert set(promised.split()) <= set(shipped())


def test_a_base_is_merged_key_by_key_and_a_weight_of_zero_takes_a_loss_out(tmp_path: Path) -> None:
    path = written(tmp_path, "mine", "base: kl_margin\nlosses: {kl: 0.0, infonce: 2.0}\nseed: 5\n")
    experiment = load_experiment(path)
    assert experiment.terms == {"margin": 0.5, "infonce": 2.0}
    assert experiment.temperature == load_experiment("kl_margin").temperature
    assert experiment.seed == 5


def test_a_base_beside_the_file_is_found_and_bases_go_to_any_depth(tmp_path: Path) -> None:
    written(tmp_path, "first", "base: infonce_only\nseed: 1\nbatch_size: 3\n")
    written(tmp_path, "second", "base: first\nseed: 2\n")
    experiment = load_experiment(written(tmp_path, "third", "base: second\nseed: 3\n"))
    assert (experiment.seed, experiment.batch_size) == (3, 3)


def test_a_circle_of_bases_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a", "base: b\n")
    with pytest.raises(ConfigError, match="circle"):
        load_experiment(written(tmp_path, "b", "base: a\n"))


def test_the_command_line_wins_and_speaks_yaml() -> None:
    overrides = ["learning_rate=1.0e-5", "losses.infonce=0.5", "early_stop={metric: RR@10}", "bf16=true"]
    experiment = load_experiment("infonce_only", overrides)
    assert experiment.learning_rate == 1e-5
    assert experiment.terms == {"infonce": 0.5}
    assert experiment.early_stop is not None and experiment.early_stop.metric == "RR@10"
    assert experiment.bf16


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "wrong", "learning_rate: fast\nbatch_size: 0\nlosess: {kl: 1}\n")
    with pytest.raises(ConfigError) as refused:
        load_experiment(path)
    assert all(name in str(refused.value) for name in ("learning_rate", "batch_size", "losess"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("losses: {lsepiar: 1}", "lsepiar"),
        ("losses: {infonce: 0}", "no term has a weight"),
        ("kind: cross_encoder\nlosses: {bce: 1, listwise: 1}", "one loss"),
        ("documents: 3\nmax_positives: 3", "leaves no negative"),
        ("stages: [{name: a}, {name: a}]", "one name"),
        ("need_positive: false", "need_positive"),
        ("losses: {cosine: 1}\ntarget: answer_nll", "0..1"),
        ("kind: cross_encoder\nlosses: {mse: 1}\ntarget: answer_nll", "0..1"),
        ("- a list", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_experiment(written(tmp_path, "wrong", text))


def test_a_cross_encoder_reads_384_tokens_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    text = "kind: cross_encoder\nlosses: {bce: 1}\n"
    assert load_experiment(written(tmp_path, "long", text)).max_length == 384
    assert load_experiment(written(tmp_path, "short", text + "max_length: 128\n")).max_length == 128
    assert load_experiment("infonce_only").max_length == 256


def test_an_unknown_experiment_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="infonce_only"):
        load_experiment("no-such")


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        load_experiment("infonce_only", ["seed"])
