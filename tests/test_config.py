"""Settings: sources in order, all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrelay.cli.config import reference_page
from qrelay.config import ServiceSettings
from qrelay.errors import ConfigError
from qrelay.settings import load_settings
from qrelay.settings.sections import SERVICES


def test_the_environment_wins_over_the_service_section_which_wins_over_all(tmp_path: Path) -> None:
    file = tmp_path / "qrelay.yaml"
    file.write_text("all: {replica: a, worker: {max_items: 1, max_bytes: 2048}}\njudge: {worker: {max_items: 2}}\n")
    settings = load_settings(ServiceSettings, "judge", file=file, environ={})
    assert (settings.replica, settings.worker.max_items, settings.worker.max_bytes) == ("a", 2, 2048)
    environ = {"QRELAY_JUDGE__WORKER__MAX_ITEMS": "3", "QRELAY_ALL__REPLICA": "b"}
    settings = load_settings(ServiceSettings, "judge", file=file, environ=environ)
    assert (settings.replica, settings.worker.max_items, settings.worker.max_bytes) == ("b", 3, 2048)


def test_every_problem_is_reported_at_once_with_the_variable_to_set() -> None:
    environ = {
        "QRELAY_JUDGE__WORKER__MAX_ITEMS": "0",
        "QRELAY_JUDGE__NO_SUCH_FIELD": "1",
        "QRELAY_ALL__GRPC__MAX_PENDING_ITEMS": "many",
    }
    with pytest.raises(ConfigError) as caught:
        load_settings(ServiceSettings, "judge", environ=environ)
    text = str(caught.value)
    assert "3 problem(s)" in text
    for expected in ("judge.worker.max_items", "judge.no_such_field", "QRELAY_JUDGE__GRPC__MAX_PENDING_ITEMS"):
        assert expected in text


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [", "is not YAML"), ("jugde: {}", "unknown sections jugde"), ("- a", "unknown sections")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "qrelay.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_settings(ServiceSettings, "all", file=file, environ={})


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings(ServiceSettings, "all", file=tmp_path / "none.yaml", environ={})


def test_lists_come_from_the_environment_as_yaml() -> None:
    environ = {"QRELAY_ALL__WORKER__RETRY_DELAYS_S": "[0.1, 0.2]"}
    assert load_settings(ServiceSettings, "sink", environ=environ).worker.retry_delays_s == (0.1, 0.2)


def test_heartbeats_must_beat_ack_wait() -> None:
    with pytest.raises(ConfigError, match="delivered to a second replica"):
        load_settings(ServiceSettings, "sink", environ={"QRELAY_ALL__NATS__ACK_WAIT_S": "5"})


def test_every_field_of_every_service_says_what_it_means() -> None:
    rows = [line for line in reference_page(list(SERVICES)).splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if not row.split(" | ")[-1].strip(" |")]
