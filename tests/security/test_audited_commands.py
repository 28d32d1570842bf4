"""Who made and took back tokens and seeds stands in the ledger's audit log, and no lack of a ledger stops the act."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.main import qrelay
from qrelay.config import TlsSettings
from qrelay.labels.ledger.audit_log import page
from qrelay.labels.ledger.ledger import Ledger
from qrelay.security.certs import SERVICE, authority, issue
from qrelay.security.tokens import read
from qrelay.web.serving import warn_open
from qrelay.web.settings import ConsoleSettings

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`qrelay` on the data folder."""
    return lambda *words: CliRunner().invoke(qrelay, [*words, "--data-dir", str(tmp_path / "data")])


def acts(tmp_path: Path) -> list[tuple[str, str, str, str]]:
    """(who, act, subject, outcome) of each row, oldest first."""
    ledger = Ledger.open(tmp_path / "data" / "ledger.sqlite", create=False)
    with ledger.snapshot() as snapshot:
        found = [(each.who, each.act, each.subject, each.outcome) for each in page(snapshot.connection).acts]
    ledger.close()
    return found[::-1]


def test_tokens_and_seeds_leave_a_row_each_with_who_did_it(tmp_path: Path, run: Run) -> None:
    Ledger.open(tmp_path / "data" / "ledger.sqlite").close()
    file, me = str(tmp_path / "tokens.yaml"), getpass.getuser()
    made = run("tokens", "add", "ana", "--role", "labeller", "--role", "trainer", "--file", file)
    assert made.exit_code == 0, made.output
    assert run("tokens", "revoke", "ana", "--file", file).exit_code == 0
    refused = run("tokens", "revoke", "ben", "--file", file)
    assert refused.exit_code != 0
    assert run("nats", "accounts").exit_code == 0
    assert run("nats", "accounts", "--rotate", "judge", "--rotate", "sink").exit_code == 0
    *done, failed, rotated = acts(tmp_path)
    assert done == [(me, "add a token", "ana: labeller trainer", "done"), (me, "revoke tokens", "ana", "done")]
    assert failed[:3] == (me, "revoke tokens", "ben") and failed[3].startswith("failed: ")
    assert rotated == (me, "rotate seeds", "judge sink", "done")
    assert made.stdout.strip() not in str(acts(tmp_path))


@pytest.mark.parametrize("there", [None, b"", b"no database" * 100])
def test_without_a_ledger_that_can_be_written_the_act_is_done_and_that_is_said(
    tmp_path: Path, run: Run, there: bytes | None
) -> None:
    file = tmp_path / "tokens.yaml"
    if there is not None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "ledger.sqlite").write_bytes(there)
    made = run("tokens", "add", "ana", "--role", "labeller", "--file", str(file))
    assert made.exit_code == 0
    assert "not in the audit log: " in made.stderr and made.stdout.startswith("qrelay_")
    assert [each.name for each in read(file)] == ["ana"]
    assert run("nats", "accounts").exit_code == run("nats", "accounts", "--rotate", "judge").exit_code == 0
    assert run("tokens", "revoke", "ana", "--file", str(file)).exit_code == 0


def test_a_console_whose_certificate_asks_nobody_who_they_are_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = issue(tmp_path / "console", authority(tmp_path / "ca"), f"{SERVICE}console", ("localhost",))
    caplog.set_level(logging.WARNING)
    warn_open(ConsoleSettings(tls=TlsSettings()))
    assert not caplog.records
    warn_open(ConsoleSettings(tls=tls))
    assert "OPEN: whoever reaches console.bind 127.0.0.1:7405 may do everything" in caplog.text
    with pytest.raises(ValueError, match="the console asks nobody who they are"):
        ConsoleSettings(tls=tls, bind="0.0.0.0:7405", insecure=True)
