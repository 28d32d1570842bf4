"""The choice of engine and judge: by rule from what was measured, once an installation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.models.group import models
from qrelay.cli.models.preparing import told
from qrelay.errors import ConfigError
from qrelay.models import tuning
from qrelay.models.catalogue import judges, load_catalogue, smaller_judge
from qrelay.models.speed import OPENVINO, TRANSFORMERS, Others, weights_per_second
from qrelay.settings.sources import TUNED_NAME

LARGE, SMALL = "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"
PLENTY = 24e9
FAST, SLOW = 300e9, 60e9
"""Weights a second: 194 and 39 tokens a second of the 1.5B."""


def chosen(rates: dict[str, float], memory: float = PLENTY, dtype: str = "float32") -> tuple[str, str]:
    judging, _ = tuning.choose(rates, dtype, memory, load_catalogue())
    return judging.engine, judging.model


def test_the_fastest_engine_serves_and_the_largest_judge_that_is_fast_enough() -> None:
    assert chosen({TRANSFORMERS: SLOW, OPENVINO: FAST}) == (OPENVINO, LARGE)
    assert chosen({TRANSFORMERS: FAST, OPENVINO: SLOW}, dtype="bfloat16") == (TRANSFORMERS, LARGE)
    assert chosen({TRANSFORMERS: SLOW, OPENVINO: SLOW * 1.1}) == (OPENVINO, SMALL)


def test_engines_of_one_speed_leave_it_to_memory() -> None:
    assert chosen({TRANSFORMERS: FAST, OPENVINO: FAST * 0.95}) == (OPENVINO, LARGE)


def test_a_machine_without_openvino_takes_pytorch() -> None:
    assert chosen({TRANSFORMERS: SLOW}) == (TRANSFORMERS, SMALL)


def test_little_memory_takes_the_smaller_judge() -> None:
    assert chosen({TRANSFORMERS: SLOW, OPENVINO: FAST}, memory=6e9) == (OPENVINO, SMALL)
    assert chosen({TRANSFORMERS: FAST, OPENVINO: SLOW}, memory=8e9) == (TRANSFORMERS, SMALL)


def test_judges_that_only_wire_things_up_are_not_chosen() -> None:
    catalogue = load_catalogue()
    assert [entry.name for entry in judges(catalogue)] == [LARGE, SMALL]
    assert smaller_judge(LARGE, catalogue) == catalogue[SMALL]
    assert smaller_judge(SMALL, catalogue) is None
    with pytest.raises(ConfigError, match="QRELAY_CATALOGUE"):
        tuning.choose({TRANSFORMERS: FAST}, "float32", PLENTY, {})


def test_encoders_are_in_8_bits_only_where_that_is_faster() -> None:
    faster = {"retriever": {"embedder_engine": "openvino"}, "reranker": {"engine": "openvino"}}
    assert tuning.encoders({"torch": 30.0, "openvino": 60.0}) == faster
    assert tuning.encoders({"torch": 30.0, "openvino": 32.0}) == {}
    assert tuning.encoders({}) == {}


def test_the_processor_is_measured_without_a_model() -> None:
    rates = weights_per_second()
    assert set(rates) == {TRANSFORMERS, OPENVINO}
    assert all(rate > 0 for rate in rates.values())


def test_a_choice_is_made_once_kept_and_shown(tmp_path: Path) -> None:
    def tuned(*options: str) -> dict[str, object]:
        arguments = ["tune", "--data-dir", str(tmp_path), "--no-fetch", "--json", *options]
        result = CliRunner().invoke(models, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        answer: dict[str, object] = json.loads(result.stdout)
        return answer

    first = tuned()
    kept = (tmp_path / TUNED_NAME).read_bytes()
    assert tuned() == first
    assert (tmp_path / TUNED_NAME).read_bytes() == kept
    assert first["settings"]["judge"]["model"] in (LARGE, SMALL)  # type: ignore[index]
    shown = CliRunner().invoke(models, ["tune", "--data-dir", str(tmp_path), "--no-fetch"]).output
    assert "because:" in shown
    assert "qrelay.yaml" in shown


def test_a_choice_beside_other_programs_says_so() -> None:
    judging, looked_at = tuning.choose({TRANSFORMERS: SLOW}, "float32", PLENTY, load_catalogue())
    for others, says in ((0.02, False), (0.6, True)):
        lines = told(tuning.document(judging, looked_at, {TRANSFORMERS: SLOW}, {}, others))
        assert any("60% of the processors" in line and "tune --again" in line for line in lines) is says


def test_what_other_programs_take_is_measured() -> None:
    others = Others()
    own = sum(number * number for number in range(2_000_000))
    with subprocess.Popen([sys.executable, "-c", "sum(i * i for i in range(10 ** 7))"]) as program:
        program.wait()
    assert own
    assert 0 < others.share() <= 1


def test_a_damaged_choice_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / TUNED_NAME).write_text("settings: 3")
    with pytest.raises(ConfigError, match="remove it and run `qrelay models tune`"):
        tuning.read(tmp_path)
