"""A whole installation whose NATS has users: everything works, and what is not theirs is refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.config import NatsSettings
from qrelay.errors import BrokerDenied
from qrelay.exitcodes import EXIT_SETUP
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsaccounts import User, accounts_of, seed_file
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation, called, qrelay


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("secured") / "data"
    made = Installation(folder, {**DOUBLES, **IMPATIENT})
    done = called("nats", "accounts", environ=made.environ)
    assert (done.returncode, "8 users" in done.stdout) == (0, True), done.stderr
    with made:
        yield made


def test_queries_are_fed_labelled_counted_and_reconciled(installation: Installation) -> None:
    lines = "".join(f"q{number}\twhat is number {number}?\n" for number in range(20))
    report = installation.run("feed", "-", "--collection", "docs", "--wait", stdin=lines)
    assert (report["committed"], report["exit"]) == (20, 0)
    look = installation.run("top", "--once")
    assert (look["problem"], {row["service"]: row["lag"] for row in look["services"]}) == (
        "", dict.fromkeys(("retriever", "reranker", "judge", "sink"), 0),
    )  # fmt: skip
    counted = installation.run("reconcile", "--collection", "docs")
    assert (counted["committed"], counted["lost"], counted["exit"]) == (20, 0, 0)


def test_a_dead_letter_goes_back_to_its_stage(installation: Installation) -> None:
    installation.run("feed", "-", "--collection", "dlq", "--wait", stdin="big\t" + "long " * 20_000)
    (letter,) = installation.run("dlq", "list")["dead_letters"]
    assert installation.run("dlq", "replay", letter["dead_letter"]["dead_letter_id"])["replayed"] == 1
    installation.until(lambda: len(installation.run("dlq", "list")["dead_letters"]) == 1)
    (again,) = installation.run("dlq", "list")["dead_letters"]
    assert (again["dead_letter"]["stage"], again["dead_letter"]["headers"]["Qrelay-Replay"]) == ("retriever", "1")


def test_nobody_connects_without_a_seed(installation: Installation) -> None:
    url = installation.endpoint("nats").grpc
    with pytest.raises(BrokerDenied):
        asyncio.run(JetStreamBroker.connect(NatsSettings(url=url), name="feed"))


@pytest.mark.parametrize("user", [User.FEEDER, User.SINK])
def test_a_service_with_anothers_seed_ends_with_78_and_says_what_it_may_not_do(
    installation: Installation, user: User, tmp_path: Path
) -> None:
    done = qrelay(
        "serve",
        "judge",
        environ={
            **os.environ,
            **DOUBLES,
            "QRELAY_DATA_DIR": str(tmp_path),
            "QRELAY_ALL__NATS__URL": installation.endpoint("nats").grpc,
            "QRELAY_ALL__NATS__NKEY_SEED": str(seed_file(accounts_of(installation.folder), user)),
        },
    )
    assert done.returncode == EXIT_SETUP, done.stderr
    assert "permissions violation for publish to" in done.stderr.splitlines()[-1]
    assert "msg.next.qrelay_v1_reranked.judge" in done.stderr.splitlines()[-1]
