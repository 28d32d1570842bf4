"""Each user of NATS may do its own work and nothing else: asked of a real server, subject by subject."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, BrokerDenied, ConfigError, MalformedInput
from qrelay.runtime.dead_letters import letter_subject
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsaccounts import User, identity, inbox, seed_file, write_accounts
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.topology import LANES, Queue, lane_of, letters, queue_of, writer_of
from qrelay.runtime.worker import StageWorker
from qrelay.services.sink.service import DeadLetterStage
from qrelay.types import CandidateSet
from qrelay.v1 import sink_pb2 as pb
from tests import samples
from tests.conftest import LONG_S, eventually
from tests.labels.builders import dead_letter
from tests.runtime.test_worker import FAST, EchoStage, collect, idle, running
from tests.services.sink.test_grpc import serving

STAGES = ("retriever", "reranker", "judge", "sink")
EVERYBODY = {f"length of {queue}" for queue in Queue} | {"account's limits"}
MAY = {
    User.RETRIEVER: {"take queries", "publish retrieved", "publish letters of retriever"},
    User.RERANKER: {"take retrieved", "publish reranked", "publish letters of reranker"},
    User.JUDGE: {"take reranked", "publish judged", "publish letters of judge"},
    User.SINK: {
        "take judged",
        "take dlq",
        *(f"publish {queue}" for queue in Queue),
        *(f"publish letters of {stage}" for stage in STAGES),
    },
    User.FEEDER: {"publish queries", "publish reranked"},
    User.CONSOLE: {"publish queries"},
    User.OPERATOR: {
        "publish queries",
        "publish reranked",
        *(f"{verb} {queue}" for queue in Queue for verb in ("read", "erase in")),
    },
    User.DECLARER: {f"declare {queue}" for queue in Queue},
}
"""What each may do beside looking, in words; written here by hand, so that a change of the computed rules is seen."""
OTHER = "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    write_accounts(tmp_path / "accounts")
    return tmp_path / "accounts"


@pytest.fixture
def server(tmp_path: Path, accounts: Path) -> Iterator[NatsServer]:
    running_server = NatsServer(tmp_path / "nats", accounts=accounts)
    running_server.start()
    yield running_server
    running_server.kill()


def settings_of(server: NatsServer, seed: Path | None, **fields: Any) -> NatsSettings:
    return NatsSettings(url=server.url, nkey_seed=seed, ack_wait_s=2.0, publish_timeout_s=0.5, **fields)


@pytest.fixture
async def declared(server: NatsServer, accounts: Path) -> NatsServer:
    await (await JetStreamBroker.connect(settings_of(server, accounts), name="declare", owner=True)).close()
    return server


async def as_user(server: NatsServer, accounts: Path, user: str) -> JetStreamBroker:
    return await JetStreamBroker.connect(settings_of(server, accounts), name=user)


def publishes() -> dict[str, list[str]]:
    """What one may want to do -> the subjects that it takes, each of which is tried."""
    asked = {"account's limits": ["$JS.API.INFO"]}
    for queue in Queue:
        stream, consumers = queue.stream, [lane.consumer for lane in queue.lanes]
        asked[f"publish {queue}"] = [
            each.replace("*", "docs", 1) for each in queue.subjects() if each.count("*") == 1
        ]
        asked[f"take {queue}"] = [
            *(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}" for consumer in consumers),
            *(f"$JS.ACK.{stream}.{consumer}.1.999.999.1795965215664845648.0" for consumer in consumers),
        ]
        asked[f"read {queue}"] = [f"$JS.API.STREAM.MSG.GET.{stream}"]
        asked[f"erase in {queue}"] = [f"$JS.API.STREAM.MSG.DELETE.{stream}"]
        asked[f"length of {queue}"] = [
            f"$JS.API.STREAM.INFO.{stream}",
            *(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}" for consumer in consumers),
        ]
        asked[f"declare {queue}"] = [
            *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE")),
            *(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}" for consumer in consumers),
        ]
        asked[f"another consumer of {queue}"] = [
            f"$JS.API.CONSUMER.CREATE.{stream}", f"$JS.API.CONSUMER.CREATE.{stream}.mine.qrelay.v1.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine", f"$JS.API.CONSUMER.MSG.NEXT.{stream}.mine",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{queue.consumer}-{LANES}",
        ]  # fmt: skip
        asked[f"destroy {queue}"] = [
            *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE", "SNAPSHOT", "RESTORE")),
            *(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}" for consumer in consumers),
            *(f"$JS.API.CONSUMER.RESET.{stream}.{consumer}" for consumer in consumers),
        ]  # fmt: skip
        asked[f"read {queue} directly"] = [f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}"]
    for stage in STAGES:
        asked[f"publish letters of {stage}"] = [letters("docs", stage)]
    asked["everything else"] = [
        "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.MINE", "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.USER.INFO", "orders.new",
        f"qrelay.v1.docs.{LANES}.queries", "qrelay.v1.docs.0.nothing",
        f"{inbox(OTHER)}.x", "_INBOX.x", "$JS.API.ACCOUNT.PURGE.QRELAY",
    ]  # fmt: skip
    return asked


SUBSCRIPTIONS = [
    ">", "qrelay.v1.*.queries", "qrelay.v1.docs.judged", "qrelay.v1.>", "_INBOX.>", f"{inbox(OTHER)}.>",
    "$JS.>", "$JS.API.>", "$JS.ACK.>", "$SYS.>", "$JS.EVENT.ADVISORY.>",
]  # fmt: skip


@asynccontextmanager
async def raw(server: NatsServer, seed: Path) -> AsyncIterator[tuple[Client, set[str]]]:
    """A client as a thief would write it, and what the server refused, in lower case: "publish
    SUBJECT" or "subscription SUBJECT"."""
    denied: set[str] = set()

    async def note(error: Exception) -> None:
        said = re.fullmatch(r'nats: permissions violation for (publish|subscription) to "(.*)"', str(error))
        denied.add(f"{said[1]} {said[2]}" if said else str(error))

    client, shown = Client(), identity(seed, "thief")
    await client.connect(server.url, nkeys_seed_str=shown.seed, inbox_prefix=shown.inbox, error_cb=note)
    try:
        yield client, denied
    finally:
        await client.close()


async def settled(client: Client) -> None:
    """Until the server has said all that it has against what was sent: it answers in order. nats-py's flush may
    overtake what it has not written yet."""
    await client.request("$JS.API.INFO", b"", timeout=LONG_S)


@pytest.mark.parametrize("user", User)
async def test_a_user_may_do_its_own_work_and_is_denied_each_other_subject(
    declared: NatsServer, accounts: Path, user: User
) -> None:
    asked, seed = publishes(), seed_file(accounts, user)
    assert MAY[user] | EVERYBODY <= set(asked)
    async with raw(declared, seed) as (client, denied):
        for subject in [each for subjects in asked.values() for each in subjects]:
            await client.publish(subject, b"")
        for subject in [*SUBSCRIPTIONS, f"{identity(seed, user).inbox}.mine.*"]:
            await client.subscribe(subject)
        await settled(client)
    refused = {what: {f"publish {each.lower()}" in denied for each in subjects} for what, subjects in asked.items()}
    allowed = {what for what, each in refused.items() if each == {False}}
    assert allowed == MAY[user] | EVERYBODY
    assert {what for what, each in refused.items() if each == {True}} == set(asked) - allowed
    assert {each for each in SUBSCRIPTIONS if f"subscription {each.lower()}" not in denied} == set()
    assert not any(identity(seed, user).inbox.lower() in each for each in denied)


async def test_nobody_comes_in_without_a_known_key(declared: NatsServer, tmp_path: Path) -> None:
    write_accounts(tmp_path / "strangers")
    with pytest.raises(BrokerDenied, match=r"Authorization Violation.*nats\.nkey_seed"):
        await JetStreamBroker.connect(settings_of(declared, None), name="judge")
    with pytest.raises(BrokerDenied, match="Authorization Violation"):
        await JetStreamBroker.connect(settings_of(declared, tmp_path / "strangers" / "judge.nk"), name="judge")


async def test_queues_from_before_there_were_users_stay(tmp_path: Path, accounts: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    async with await JetStreamBroker.connect(settings_of(server, None), name="feed", owner=True) as broker:
        payload, headers = wire.encode(samples.query(0))
        await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, "one")
    server.stop()
    server.accounts = accounts
    server.start()
    async with await as_user(server, accounts, "retriever") as retriever:
        assert await collect(retriever, Queue.QUERIES, 1) == [samples.query(0)]
    server.kill()


async def test_a_service_waits_for_the_declarer(server: NatsServer, accounts: Path) -> None:
    heard: list[Exception] = []
    waiting = asyncio.create_task(
        JetStreamBroker.connect(settings_of(server, accounts), name="retriever", failed=heard.append)
    )
    await eventually(lambda: heard)
    assert "`qrelay nats declare` does it" in str(heard[0])
    await (await JetStreamBroker.connect(settings_of(server, accounts), name="declare", owner=True)).close()
    await (await waiting).close()


async def test_who_may_not_declare_is_told_so_instead_of_waiting(server: NatsServer, accounts: Path) -> None:
    with pytest.raises(BrokerDenied, match=r"permissions violation.*stream\.create\.qrelay_v1_queries"):
        await JetStreamBroker.connect(settings_of(server, seed_file(accounts, User.JUDGE)), name="x", owner=True)


@pytest.mark.parametrize(
    ("user", "said"),
    [(User.FEEDER, r"msg\.next\.qrelay_v1_queries\.retriever"), (User.JUDGE, r"msg\.next\.qrelay_v1_queries")],
)
async def test_a_worker_with_anothers_seed_ends_with_what_it_may_not_do(
    declared: NatsServer, accounts: Path, user: User, said: str
) -> None:
    broker = await as_user(declared, seed_file(accounts, user), "retriever")
    with pytest.raises(BrokerDenied, match=said):
        await StageWorker(EchoStage(), broker, FAST).run()
    await broker.close()


async def test_a_worker_that_may_not_publish_ends_and_its_message_stays(declared: NatsServer, accounts: Path) -> None:
    """It takes queries as the retriever does, and its answers would go to the judge's queue."""
    stage = EchoStage()
    stage.target = Queue.RERANKED
    feeder, retriever = [await as_user(declared, accounts, user) for user in ("feed", "retriever")]
    payload, headers = wire.encode(samples.query(0))
    await feeder.publish(Queue.QUERIES.subject("docs"), payload, headers, "one")
    with pytest.raises(BrokerDenied, match=r"publish to .qrelay\.v1\.docs\.\d\.reranked"):
        async with running(stage, retriever) as worker:
            await eventually(lambda: worker._stopping.is_set())
    assert {each.queue: each.lag for each in await feeder.stats()}[Queue.QUERIES] == 1
    assert await idle(feeder, Queue.DLQ)
    for broker in (feeder, retriever):
        await broker.close()


async def test_who_may_not_erase_is_told_so_and_not_that_nats_is_slow(declared: NatsServer, accounts: Path) -> None:
    async with await as_user(declared, accounts, "judge") as judge:
        with pytest.raises(BrokerDenied, match=r"msg\.delete\.qrelay_v1_queries"):
            await judge.erase(Queue.QUERIES, 1)


async def test_queues_of_a_version_before_are_waited_for_until_declared_again(
    declared: NatsServer, accounts: Path
) -> None:
    """That version's streams lack the subjects of each stage's dead letters."""
    seed = identity(seed_file(accounts, User.DECLARER), "declare")
    client = Client()
    await client.connect(declared.url, nkeys_seed_str=seed.seed, inbox_prefix=seed.inbox)
    old = (await client.jetstream().stream_info(Queue.DLQ.stream)).config
    old.subjects = ["qrelay.v1.*.dlq"]
    await client.jetstream().update_stream(old)
    await client.close()
    with pytest.raises(BackendUnavailable, match="`qrelay nats declare` does it"):
        await JetStreamBroker.connect(settings_of(declared, accounts), name="judge", attempts=2)
    await (await JetStreamBroker.connect(settings_of(declared, accounts), name="declare", owner=True)).close()
    await (await as_user(declared, accounts, "judge")).close()


async def test_a_user_that_is_taken_away_is_told_so(declared: NatsServer, accounts: Path) -> None:
    broker = await as_user(declared, accounts, "judge")
    assert await broker.fetch(Queue.RERANKED, 1, 0.01) == []
    write_accounts(accounts, [User.JUDGE])
    os.kill(declared.pid, signal.SIGHUP)
    await eventually(lambda: broker._client.is_closed or not broker._client.is_connected)
    with pytest.raises(BrokerDenied, match=r"(?i)authorization"):
        while True:
            with pytest.raises(BackendUnavailable):  # until the server has told it why
                await broker.fetch(Queue.RERANKED, 1, 0.01)
    await broker.close()
    again = await as_user(declared, accounts, "judge")
    assert await again.fetch(Queue.RERANKED, 1, 0.01) == []
    await again.close()


# --- a stolen seed of the judge


def forged(**fields: Any) -> Any:
    payload, headers = wire.encode(samples.query(7))
    subject = Queue.QUERIES.subject("docs")
    return dead_letter("forged", "q7", "text", payload=payload, headers=headers, subject=subject, **fields)


async def test_a_thief_of_the_judges_seed_cannot_feed_the_retriever_by_a_forged_dead_letter(
    declared: NatsServer, accounts: Path, tmp_path: Path
) -> None:
    """Under the retriever's name NATS refuses it. Under its own the sink takes it, and does not replay it: neither
    as the judge's, which reads no queries, nor as the retriever's, which did not write it."""
    sink = await as_user(declared, accounts, "sink")
    kinds = ["judge", "retriever"]
    async with raw(declared, seed_file(accounts, User.JUDGE)) as (thief, denied):
        for stage in kinds:
            payload, headers = wire.encode(forged(stage=stage))
            await thief.publish(letters("docs", "retriever"), payload, headers=headers)
            await thief.publish(letters("docs", "judge"), payload, headers=headers)
        await settled(thief)
    assert denied == {f"publish {letters('docs', 'retriever')}"}
    async with serving(tmp_path, broker=sink) as (stub, core):
        async with running(DeadLetterStage(core), sink):  # type: ignore[arg-type]
            await eventually(lambda: len(core.ledger.waiting_dead_letters()) == 2)
        stages = {entry.letter.stage for entry in core.ledger.list_dead_letters(None, False, 9, "").entries}
        assert stages == {"judge", "sink-dead-letters"}
        answer = await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(dead_letter_ids=["forged"]), timeout=LONG_S)
        assert (answer.replayed, list(answer.skipped_ids)) == (0, ["forged"])
        await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(all=True), timeout=LONG_S)
    assert await idle(sink, Queue.QUERIES)
    await sink.close()


async def test_what_a_thief_lets_jetstream_copy_into_anothers_queue_is_no_work_there(
    declared: NatsServer, accounts: Path
) -> None:
    """JetStream answers a request for messages at any address, a stream's subject too: the server's permissions do
    not reach that far. The copy keeps its subject, and the service that meets it makes a dead letter of it."""
    feeder, retriever = [await as_user(declared, accounts, user) for user in ("feed", "retriever")]
    query = replace(samples.query(1), collection="docs")
    payload, headers = wire.encode(CandidateSet(query, samples.candidates(2), "v1"))
    await feeder.publish(Queue.RERANKED.subject("docs"), payload, headers, "one")
    async with raw(declared, seed_file(accounts, User.JUDGE)) as (thief, denied):
        ask = f"$JS.API.CONSUMER.MSG.NEXT.{Queue.RERANKED.stream}.judge-{lane_of('docs')}"
        await thief.publish(ask, b'{"batch": 1, "expires": 1000000000}', reply=Queue.QUERIES.subject("docs"))
        await settled(thief)
        assert denied == set()
    stage = EchoStage()
    async with running(stage, retriever):
        await eventually(lambda: idle(feeder, Queue.QUERIES))
    sink = await as_user(declared, accounts, "sink")
    (letter,) = await collect(sink, Queue.DLQ, 1)
    assert (stage.batches, letter.stage, letter.reason) == ([], "retriever", "malformed")
    assert f"a message of subject '{Queue.RERANKED.subject('docs')}' on the queue queries" in letter.detail
    for broker in (feeder, retriever, sink):
        await broker.close()


async def test_a_stream_of_the_former_version_is_declared_again_when_a_letter_finds_no_place(
    nats_settings: NatsSettings,
) -> None:
    """Its letters, which name no stage, are read as they are."""
    async with await JetStreamBroker.connect(nats_settings, name="judge", owner=True) as broker:
        config = (await broker._js.stream_info(Queue.DLQ.stream)).config
        await broker._js.update_stream(config.evolve(subjects=["qrelay.v1.*.dlq"]))
        letter = dead_letter("l1", "q1", "text")
        payload, headers = wire.encode(letter)
        await broker.publish(Queue.DLQ.subject("docs"), payload, headers, "former")
        with pytest.raises(BackendUnavailable):
            await broker.publish(letter_subject(letter), payload, headers, "now")
        await broker.publish(letter_subject(letter), payload, headers, "now")
        found = [message.subject async for message in broker.stored(Queue.DLQ, "docs")]
        assert found == ["qrelay.v1.docs.dlq", "qrelay.v1.docs.judge.dlq"]
        assert await collect(broker, Queue.DLQ, 2) == [letter, letter]


# --- files


def test_seeds_are_their_owners_alone_stay_and_are_rotated_one_by_one(tmp_path: Path) -> None:
    write_accounts(tmp_path)
    before = {user: seed_file(tmp_path, user).read_text() for user in User}
    assert all(seed_file(tmp_path, user).stat().st_mode & 0o777 == 0o600 for user in User)
    config = (tmp_path / "accounts.conf").read_text()
    assert not any(seed.strip() in config for seed in before.values())
    write_accounts(tmp_path)
    assert (tmp_path / "accounts.conf").read_text() == config
    write_accounts(tmp_path, [User.JUDGE])
    after = {user: seed_file(tmp_path, user).read_text() for user in User}
    assert {user for user in User if before[user] != after[user]} == {User.JUDGE}
    assert identity(seed_file(tmp_path, User.SINK), "x") == identity(tmp_path, "sink")


def test_a_file_that_holds_no_seed_is_named_without_what_it_holds(tmp_path: Path) -> None:
    write_accounts(tmp_path)
    whole = seed_file(tmp_path, User.JUDGE).read_text().strip()
    for text in ("", "hunter2", whole[:-1], whole[:-4] + "AAAA", "é", whole.replace("SU", "SA", 1)):
        seed_file(tmp_path, User.JUDGE).write_text(text)
        with pytest.raises(ConfigError, match=r"judge\.nk holds no user's NKey seed") as raised:
            identity(tmp_path, "judge")
        assert not text or text not in str(raised.value)
        with pytest.raises(ConfigError):
            write_accounts(tmp_path)
    with pytest.raises(ConfigError, match=r"nobody\.nk cannot be read"):
        identity(tmp_path, "nobody")


def test_subjects_that_are_no_dead_letters_place_are_refused() -> None:
    assert queue_of("qrelay.v1.docs.judge.dlq") is Queue.DLQ
    assert (writer_of("qrelay.v1.docs.judge.dlq"), writer_of("qrelay.v1.docs.dlq")) == ("judge", "")
    for odd in ("qrelay.v1.docs.judge.queries", "qrelay.v1.docs.a.b.dlq", "qrelay.v1.docs..dlq", "qrelay.v1..dlq"):
        with pytest.raises(MalformedInput):
            queue_of(odd)
