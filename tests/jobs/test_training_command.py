"""`qrelay training`, as the command line runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.labels.training import training
from qrelay.errors import ConfigError, InputError, UnknownCollection
from qrelay.jobs.dispatcher import Dispatcher
from qrelay.jobs.launcher import JobStatus
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.sink import load_sink
from qrelay.settings.training import TrainingSettings
from tests.jobs.memory_launcher import MemoryLauncher
from tests.labels.builders import graded, judged_set

POLICY = {"enabled": True, "min_new_hard_examples": 3, "max_age_s": 86400, "command": ["train", "{collection}"]}


@pytest.fixture
def home(tmp_path: Path, ledger_url: str) -> Path:
    """A folder with a configuration, whose ledger holds two sets of one hard example each."""
    policy = TrainingSettings.model_validate(POLICY)
    core = load_sink(SinkSettings(ledger=ledger_url, data_dir=tmp_path, training=policy))
    core.ledger.commit([judged_set(each, outcomes=[graded(3), graded(0)]) for each in ("q1", "q2")])
    core.close()
    section = {"ledger": ledger_url, "data_dir": str(tmp_path), "training": POLICY}
    (tmp_path / "qrelay.yaml").write_text(json.dumps({"sink": section}))
    return tmp_path


def run(home: Path, *arguments: str, config: bool = True) -> str:
    given = [*arguments, "--data-dir", str(home), *(["--config", str(home / "qrelay.yaml")] if config else [])]
    clean = {name: None for name in os.environ if name.startswith("QRELAY_")}
    result = CliRunner().invoke(training, given, catch_exceptions=False, env=clean)
    assert result.exit_code == 0, result.output
    return result.output


def shown(home: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(home, *arguments, "--json"))
    return found


def test_status_says_what_is_missing_until_the_next_trigger(home: Path) -> None:
    found = shown(home, "status")
    (docs,) = found["collections"]
    assert (docs["new_hard_examples"], docs["new_judged"], docs["waits"]) == (2, 4, "no rule is reached")
    assert docs["rules"][0] == {
        "rule": "min_new_hard_examples", "have": 2, "needed": 3, "lacks": "1 more hard examples"
    }  # fmt: skip
    assert (found["enabled"], found["triggers"], found["runs"]) == (True, [], [])
    out = run(home, "status", "--collection", "docs")
    assert "docs: 2 new hard examples, 4 judged pairs, 0 disagreements since" in out
    assert "min_new_hard_examples: 2 of 3, lacks 1 more hard examples" in out
    assert "next: no rule is reached" in out


def test_a_run_by_hand_is_in_the_outbox_and_shown_to_its_end(home: Path, ledger_url: str) -> None:
    made = shown(home, "run", "--collection", "docs", "--unmeasured")
    assert (made["collection"], made["change_no"]) == ("docs", 1)
    assert f"trigger {made['trigger']} of docs: manual at change 1, pending" in run(home, "status")
    policy = TrainingSettings.model_validate(POLICY)
    settings = SinkSettings(ledger=ledger_url, data_dir=home, training=policy)
    ledger, launcher = Ledger.open(ledger_url), MemoryLauncher()
    Dispatcher(ledger, settings, launcher).step()
    launcher.end(made["job"], JobStatus("failed", None, "its runner was killed"))
    Dispatcher(ledger, settings, launcher).step()
    ledger.close()
    found = shown(home, "status")
    assert found["triggers"][0]["state"] == "launched"
    assert (found["runs"][0]["job"], found["runs"][0]["state"]) == (made["job"], "failed")
    assert found["collections"][0]["new_hard_examples"] == 0  # the trigger took what was counted
    out = run(home, "status")
    assert f"run {made['job']}: failed, its runner was killed, started" in out
    assert f"  | log of {made['job']}" in out


def test_a_pending_trigger_is_given_up_by_its_number(home: Path) -> None:
    made = shown(home, "run", "--collection", "docs", "--unmeasured")
    with pytest.raises(InputError, match=rf"qrelay training abandon {made['trigger']}"):
        run(home, "run", "--collection", "docs", "--unmeasured")
    assert shown(home, "abandon", str(made["trigger"])) == {"trigger": made["trigger"], "state": "refused"}
    assert run(home, "run", "--collection", "docs", "--unmeasured").startswith("trigger ")


def test_a_wrong_collection_and_a_missing_command_are_said(home: Path, ledger_url: str) -> None:
    with pytest.raises(UnknownCollection, match="it holds docs"):
        run(home, "run", "--collection", "dcos")
    with pytest.raises(ConfigError, match=r"set sink\.training\.command"):
        run(home, "run", "--collection", "docs", "--ledger", ledger_url, config=False)
    out = run(home, "status", "--ledger", ledger_url, config=False)
    assert out.startswith("the policy is off (sink.training.enabled)")
    assert "docs: new labels are not counted: the policy is off" in out
    assert "lacks" not in out and "next:" not in out


def test_a_collection_that_the_policy_is_not_for_has_no_counters(home: Path, ledger_url: str) -> None:
    section = {"ledger": ledger_url, "data_dir": str(home), "training": POLICY | {"collections": ["other"]}}
    (home / "qrelay.yaml").write_text(json.dumps({"sink": section}))
    (docs,) = shown(home, "status")["collections"]
    assert (docs["policy"], docs["new_hard_examples"], docs["new_judged"], docs["new_disagreements"]) == (
        False, None, None, None,
    )  # fmt: skip
    assert "docs: new labels are not counted: the policy is not for it (sink.training.collections)" in run(
        home, "status"
    )
