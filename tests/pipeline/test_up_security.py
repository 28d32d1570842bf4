"""What `qrelay up` makes of certificates, roles and --insecure that the operator gave."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
import yaml

from qrelay.cli.options import INSECURE
from qrelay.cli.up import CERTIFICATES, build, nats_tls, secured
from qrelay.config import PLAIN
from qrelay.rundir import Endpoint
from qrelay.runtime.lookout import is_ready
from qrelay.security.certs import KEY_TO_CONSOLE, development, variables
from qrelay.settings import find
from tests.pipeline.harness import DOUBLES, Installation

TOKENS = "QRELAY_ALL__ACCESS__TOKENS"


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that are set here do not outlive the test."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.mark.usefixtures("environ")
@pytest.mark.parametrize("section", ["all", "console"])
def test_roles_that_the_operator_gave_are_kept(tmp_path: Path, section: str) -> None:
    file, said = tmp_path / "own.yaml", list[str]()
    file.write_text(f"{section}: {{access: {{grants: {{ana: [reader]}}}}}}")
    secured(tmp_path, find(file, tmp_path), said.append)
    assert TOKENS not in os.environ
    assert not (tmp_path / CERTIFICATES / KEY_TO_CONSOLE).exists()
    assert "access is as the settings say" in said[-1]


@pytest.mark.usefixtures("environ")
def test_where_nobody_has_roles_a_token_is_made_and_again_at_the_next_start(tmp_path: Path) -> None:
    key, made = tmp_path / CERTIFICATES / KEY_TO_CONSOLE, list[str]()
    for _ in range(2):
        secured(tmp_path, find(None, tmp_path), lambda _: None)
        made.append(key.read_text())
    assert os.environ[TOKENS] == str(tmp_path / CERTIFICATES / "tokens.yaml")
    assert made[0] != made[1]


def test_certificates_in_a_folder_of_that_name_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / CERTIFICATES
    development(folder)
    assert nats_tls(tmp_path)
    (folder / "ca.key").unlink()  # as an operator's own, whose key is elsewhere
    assert nats_tls(tmp_path) is None


def test_insecure_holds_for_one_run_and_certificates_of_one_service_are_used(tmp_path: Path) -> None:
    development(tmp_path / "certs", people=["ana"])
    own = {name: path for name, path in variables(tmp_path / "certs", "ana").items() if "_JUDGE__" in name}
    arguments = ("--insecure", "--only", "judge", "--only", "sink")
    with Installation(tmp_path / "data", {**DOUBLES, **own}, *arguments) as up:
        assert up.endpoint("judge").grpc
    record = yaml.safe_load((tmp_path / "data" / "settings.yaml").read_text())["settings"]
    assert "tls" in record["judge"]
    assert not any("insecure" in section for section in record.values())


@pytest.mark.parametrize("given", [True, False])
def test_services_of_a_run_with_insecure_are_told(tmp_path: Path, given: bool) -> None:
    with click.Context(click.Command("up")) as ctx:
        ctx.meta[INSECURE] = given
        (child,) = build(tmp_path, "nats://127.0.0.1:4222", None, 0, ("judge",), print).children
    assert (INSECURE in child.environ) is given


def test_a_console_that_asks_for_certificates_which_nobody_has_does_not_answer() -> None:
    assert not is_ready(Endpoint("console", 1, "https://127.0.0.1:1", ""), PLAIN)
