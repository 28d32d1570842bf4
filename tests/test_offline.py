"""What keeps a service's process off hubs, and whom it must not keep off."""

from __future__ import annotations

from qrelay.cli.offline import OFFLINE, stay_offline


def test_a_service_is_kept_off_hubs_unless_that_was_chosen() -> None:
    environ = {"HF_HUB_OFFLINE": "0"}
    stay_offline(environ)
    assert environ == {**OFFLINE, "HF_HUB_OFFLINE": "0"}


def test_the_sink_which_publishes_where_it_is_told_to_reaches_a_hub_and_reports_to_nobody() -> None:
    environ: dict[str, str] = {}
    stay_offline(environ, publishes=True)
    assert environ == {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
