"""Certificates on real servers: who has none, a foreign or an old one, is refused; new files drop no call."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qrelay.client.places import Places
from qrelay.config import GrpcSettings, NatsSettings, ServiceSettings, TlsSettings, Transport
from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.runtime import telemetry
from qrelay.runtime.client import translated
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.lookout import metrics_of
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.servicer import service_info
from qrelay.security.certs import PERSON, SERVICE, Authority, authority, issue
from qrelay.security.expiry import valid_until, validity
from qrelay.security.tls import Channels, Files, channel, files_of, server_context
from tests.conftest import LONG_S
from tests.serving import serving

HERE = ("localhost", "127.0.0.1", "::1")
SERVES = health_pb2.HealthCheckResponse.NOT_SERVING
"""What these servers answer: they have no model."""


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ana(signer: Authority, tmp_path_factory: pytest.TempPathFactory) -> Transport:
    """A person's certificate."""
    return Transport(issue(tmp_path_factory.mktemp("ana"), signer, f"{PERSON}ana"))


@pytest.fixture(scope="module")
def judge(signer: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service's address."""
    tls = issue(tmp_path_factory.mktemp("judge"), signer, f"{SERVICE}judge", HERE)
    with serving("qrelay.v1.JudgeService", lambda _: None, tls) as address:
        yield address


def health(address: str, transport: Transport) -> int:
    """Asked once, by a connection of its own, which tries nothing again."""
    with channel(address, transport, [("grpc.enable_retries", 0)]) as opened, translated(address):
        request = health_pb2.HealthCheckRequest()
        return int(health_pb2_grpc.HealthStub(opened).Check(request, timeout=LONG_S).status)


def test_a_service_answers_a_certificate_of_its_authority(judge: str, ana: Transport) -> None:
    assert health(judge, ana) == SERVES


def foreign(folder: Path, _: Authority) -> TlsSettings:
    """Of another authority, with the right one to believe."""
    return issue(folder, authority(folder / "other"), f"{SERVICE}console", HERE)


def expired(folder: Path, signer: Authority) -> TlsSettings:
    return issue(folder, signer, f"{SERVICE}console", HERE, days=-1)


@pytest.mark.parametrize("made", [foreign, expired])
def test_a_foreign_or_an_old_certificate_is_refused(
    made: Callable[[Path, Authority], TlsSettings], judge: str, ana: Transport, signer: Authority, tmp_path: Path
) -> None:
    theirs = made(tmp_path, signer)
    shown = theirs.model_copy(update={"authority": ana.tls.authority})
    with pytest.raises(BackendUnavailable, match=r"see all\.tls"):
        health(judge, Transport(shown))


def test_nobody_comes_in_without_a_certificate(judge: str, ana: Transport) -> None:
    with pytest.raises(BackendUnavailable, match=r"see all\.tls"):
        health(judge, Transport())
    assert ana.tls.authority
    nameless = grpc.ssl_channel_credentials(ana.tls.authority.read_bytes())
    with grpc.secure_channel(judge, nameless) as opened, pytest.raises(grpc.RpcError):
        health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=LONG_S)


def test_a_server_that_answers_as_another_is_not_believed(ana: Transport, signer: Authority, tmp_path: Path) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}sink", ["sink.example"])
    with serving("qrelay.v1.SinkService", lambda _: None, tls) as address:
        with pytest.raises(BackendUnavailable, match="Hostname Verification"):
            health(address, ana)


def test_a_server_behind_a_forwarded_port_is_believed_by_the_name_that_the_settings_give_and_by_no_other(
    ana: Transport, signer: Authority, tmp_path: Path
) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}judge", ["judge"])

    def named(name: str) -> Transport:
        return Transport(ana.tls.model_copy(update={"server_names": {address: name}}))

    async def asked(transport: Transport) -> int:
        channels = Channels(transport)
        request = health_pb2.HealthCheckRequest()
        try:
            return int((await health_pb2_grpc.HealthStub(channels.to(address)).Check(request, timeout=LONG_S)).status)
        finally:
            await channels.close()

    with serving("qrelay.v1.JudgeService", lambda _: None, tls) as address:
        assert health(address, named("judge")) == SERVES
        assert asyncio.run(asked(named("judge"))) == SERVES
        for other in (ana, named("sink")):
            with pytest.raises(BackendUnavailable, match="Hostname Verification"):
                health(address, other)


def test_a_server_of_another_authority_is_not_believed(ana: Transport, tmp_path: Path) -> None:
    tls = issue(tmp_path, authority(tmp_path / "other"), f"{SERVICE}sink", HERE)
    with serving("qrelay.v1.SinkService", lambda _: None, tls) as address:
        with pytest.raises(BackendUnavailable, match=r"see all\.tls"):
            health(address, ana)


def test_a_client_with_certificates_speaks_no_plain_text(ana: Transport) -> None:
    with serving("qrelay.v1.SinkService", lambda _: None) as address, pytest.raises(BackendUnavailable):
        health(address, ana)


def test_several_addresses_of_one_name_are_one_target(judge: str, ana: Transport) -> None:
    assert health(f"ipv4:{judge},{judge}", ana) == SERVES


def test_the_port_for_probes_answers_health_and_nothing_else(signer: Authority, tmp_path: Path) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE).model_copy(update={"probe_bind": "127.0.0.1:0"})

    async def ask() -> None:
        server = GrpcServer(GrpcSettings(), "qrelay.v1.JudgeService", tls)
        await server.start()
        async with grpc.aio.insecure_channel(server.probes) as opened:
            answer = await health_pb2_grpc.HealthStub(opened).Check(
                health_pb2.HealthCheckRequest(service="liveness"), timeout=LONG_S
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await opened.unary_unary("/qrelay.v1.JudgeService/GetInfo")(b"", timeout=LONG_S)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            watching = [health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest()) for _ in range(40)]
            assert {await each.code() for each in watching} == {grpc.StatusCode.UNIMPLEMENTED}
        await server.drain(0)

    asyncio.run(ask())


def test_who_watches_health_leaves_room_for_who_checks_it() -> None:
    async def ask() -> None:
        server = GrpcServer(GrpcSettings(bind="127.0.0.1:0", max_calls=16), "qrelay.v1.JudgeService")
        async with grpc.aio.insecure_channel(await server.start()) as opened:
            stub = health_pb2_grpc.HealthStub(opened)
            watching = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
            assert [(await each.read()).status for each in watching] == [SERVES, SERVES]
            assert await stub.Watch(health_pb2.HealthCheckRequest()).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=LONG_S)).status == SERVES
            for each in watching:
                each.cancel()
        await server.drain(0)

    asyncio.run(ask())


CALLS = 300
"""Of each of the threads, and of the one that keeps its channels."""
THREADS = 3


def test_new_certificates_under_load_drop_no_call_and_are_in_force_then(signer: Authority, tmp_path: Path) -> None:
    server, client = tmp_path / "server", tmp_path / "client"
    tls, transport = issue(server, signer, f"{SERVICE}judge", HERE), Transport(issue(client, signer, f"{PERSON}ana"))
    first, done, failed = tls.certificate.read_bytes(), threading.Semaphore(0), []

    def count(ask: Callable[[], int]) -> None:
        try:
            assert ask() == SERVES
        except Exception as error:
            failed.append(error)
        done.release()

    def connecting(address: str) -> None:
        for _ in range(CALLS):
            count(lambda: health(address, transport))

    async def keeping(address: str) -> None:
        places = Places(tmp_path, {"judge": address}, transport=transport)
        for _ in range(CALLS):
            stub = health_pb2_grpc.HealthStub(places.channel(address))
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=LONG_S)
            count(lambda status=answer.status: int(status))
        await places.close()

    def replace() -> None:
        """While calls go on: a sixth of them before, a sixth after."""
        for _ in range(CALLS * (THREADS + 1) // 3):
            assert done.acquire(timeout=LONG_S)
        issue(server, signer, f"{SERVICE}judge", HERE)
        issue(client, signer, f"{PERSON}ana")

    with serving("qrelay.v1.JudgeService", lambda _: None, tls) as address, ThreadPoolExecutor() as pool:
        running = [pool.submit(connecting, address) for _ in range(THREADS)]
        running.append(pool.submit(lambda: asyncio.run(keeping(address))))
        replace()
        replace()
        for each in running:
            each.result()
        host, _, port = address.partition(":")
        shown = _shown((host, int(port)), transport)
    assert failed == []
    assert shown == tls.certificate.read_bytes() != first


def _shown(address: tuple[str, int], transport: Transport) -> bytes:
    """The certificate that a server shows, as PEM."""
    import ssl

    context = Files(transport.tls).context(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(address) as plain:
        with context.wrap_socket(plain, server_hostname=address[0]) as wrapped:
            found = wrapped.getpeercert(binary_form=True)
    assert found
    return ssl.DER_cert_to_PEM_cert(found).encode()


def test_a_call_that_runs_outlives_new_certificates(signer: Authority, ana: Transport, tmp_path: Path) -> None:
    tls = issue(tmp_path / "server", signer, f"{SERVICE}judge", HERE)
    transport = Transport(issue(tmp_path / "client", signer, f"{PERSON}ana"))

    async def watch(address: str) -> None:
        places = Places(tmp_path, {"judge": address}, transport=transport)
        watching = health_pb2_grpc.HealthStub(places.channel(address)).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == SERVES
        for _ in range(12):  # more than are kept
            issue(tmp_path / "client", signer, f"{PERSON}ana")
            answer = await health_pb2_grpc.HealthStub(places.channel(address)).Check(health_pb2.HealthCheckRequest())
            assert answer.status == SERVES
        assert not watching.done()
        watching.cancel()
        await places.close()

    with serving("qrelay.v1.JudgeService", lambda _: None, tls) as address:
        asyncio.run(watch(address))


def test_files_that_do_not_belong_together_change_nothing_and_are_told_once(
    signer: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = issue(tmp_path / "now", signer, f"{SERVICE}judge", HERE)
    files, after = Files(tls), issue(tmp_path / "next", signer, f"{SERVICE}judge", HERE)
    before = files.current()
    assert tls.certificate and after.certificate and tls.key and after.key
    with caplog.at_level(logging.ERROR):
        shutil.copyfile(after.certificate, tls.certificate)
        assert [files.current(), files.current()] == [before, before]
    (told,) = (each.getMessage() for each in caplog.records if each.name == "qrelay.security.tls")
    assert "the former certificate stays in force" in told
    shutil.copyfile(after.key, tls.key)
    assert files.current().certificate == after.certificate.read_bytes()


def test_a_file_that_is_gone_is_told_once_and_handshakes_go_on(
    signer: Authority, ana: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE)
    address = telemetry.setup_metrics("127.0.0.1:0", tls)
    assert tls.key
    tls.key.unlink()
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert "qrelay_ready" in metrics_of(address, LONG_S, ana)
    assert len([each for each in caplog.records if each.name == "qrelay.security.tls"]) == 1


def test_who_begins_while_files_are_replaced_takes_the_new_ones(signer: Authority, tmp_path: Path) -> None:
    tls, after = (issue(tmp_path / name, signer, f"{SERVICE}judge", HERE) for name in ("now", "next"))
    assert tls.certificate and after.certificate and tls.key and after.key
    new = after.certificate.read_bytes()
    after.key.replace(tls.key)
    with ThreadPoolExecutor() as pool:
        began = pool.submit(Files, tls)
        after.certificate.replace(tls.certificate)
        assert began.result().current().certificate == new


@pytest.mark.parametrize("lost", ["certificate", "key", "authority"])
def test_a_file_that_is_no_pem_is_an_error_that_says_which_files(
    lost: str, signer: Authority, tmp_path: Path
) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE)
    getattr(tls, lost).write_text("nothing")
    with pytest.raises(ConfigError, match=r"tls: .*as PEM"):
        server_context(tls)


async def connects_once_it_may(settings: NatsSettings, right: TlsSettings, caplog: pytest.LogCaptureFixture) -> None:
    """A service whose certificate nobody believes at first."""
    caplog.clear()
    waits = asyncio.create_task(connect(settings))
    while not caplog.records:
        await asyncio.sleep(0.02)
    wrong = settings.transport.tls
    for name in ("key", "certificate", "authority"):
        getattr(right, name).replace(getattr(wrong, name))
    await waits


async def connect(settings: NatsSettings, attempts: int | None = None) -> None:
    async with await JetStreamBroker.connect(settings, name="test", attempts=attempts, owner=True) as broker:
        await broker.stats()


def test_the_queues_are_reached_with_certificates_alone_and_through_new_ones(
    signer: Authority, ana: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "nats-certificate"
    server = NatsServer(tmp_path / "nats", tls=issue(folder, signer, f"{SERVICE}nats", HERE))
    server.start()
    plain = NatsSettings(url=server.url)
    other = Transport(issue(tmp_path / "other", authority(tmp_path / "theirs"), f"{PERSON}eve"))

    try:
        assert server.url.startswith("tls://")
        asyncio.run(connect(plain.by(ana)))
        with pytest.raises(ConfigError, match="asks for certificates"):
            asyncio.run(connect(plain))
        with pytest.raises(BackendUnavailable, match=r"(?i)certificate"):
            asyncio.run(connect(plain.by(other), attempts=2))
        asyncio.run(connects_once_it_may(plain.by(other), issue(tmp_path / "late", signer, f"{PERSON}eve"), caplog))
        new = issue(folder, signer, f"{SERVICE}nats", HERE)
        server.renew()
        log = tmp_path / "nats" / "nats.log"
        while b"Reloaded" not in log.read_bytes():
            assert server.pid
        asyncio.run(connect(plain.by(ana)))
        assert new == files_of(folder)
    finally:
        server.stop()


def test_the_queues_behind_a_forwarded_port_are_reached_by_the_name_that_the_settings_give(
    signer: Authority, ana: Transport, tmp_path: Path
) -> None:
    server = NatsServer(tmp_path / "nats", tls=issue(tmp_path / "tls", signer, f"{SERVICE}nats", ["nats"]))
    server.start()
    try:
        address = server.url.removeprefix("tls://")
        tls = ana.tls.model_copy(update={"server_names": {address: "nats"}})
        asyncio.run(connect(NatsSettings(url=server.url).by(Transport(tls))))
        with pytest.raises(BackendUnavailable, match=r"(?i)certificate"):
            asyncio.run(connect(NatsSettings(url=server.url).by(ana), attempts=2))
    finally:
        server.stop()


def expiry(address: str, ana: Transport) -> tuple[float, float]:
    """When the process's certificate ends, and by when it is to be renewed, as the metrics say."""
    lines = dict(
        each.split() for each in metrics_of(address, LONG_S, ana).splitlines() if each.startswith("qrelay_c")
    )
    ends, renew_by = (
        float(lines[f"qrelay_certificate_{each}_timestamp_seconds"]) for each in ("expires", "renew_by")
    )
    return ends, renew_by


def test_metrics_and_info_say_when_the_certificate_in_force_expires_and_a_new_one_is_told_without_a_restart(
    signer: Authority, ana: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = 86_400
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE, days=30)
    address = telemetry.setup_metrics("127.0.0.1:0", tls)
    ends, renew_by = expiry(address, ana)
    found = x509.load_pem_x509_certificate((tmp_path / "tls.crt").read_bytes())
    assert (ends, renew_by) == (found.not_valid_after_utc.timestamp(), ends - 7 * day)
    info = service_info(ServiceContext("judge", ServiceSettings(tls=tls), "r1"))
    assert info.details["certificate"] == f"until {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    issue(tmp_path, signer, f"{SERVICE}judge", HERE, days=3)
    later, renew_by = expiry(address, ana)
    assert later < ends - 20 * day
    assert day <= later - renew_by <= day + 300
    assert "expires at" not in caplog.text


def test_a_certificate_of_which_less_than_a_third_is_left_is_warned_of(
    signer: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new one began five minutes ago: of one that holds for another minute, a sixth is left."""
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE, days=1 / 24 / 60)
    with caplog.at_level(logging.WARNING):
        telemetry.setup_metrics("127.0.0.1:0", tls)
    assert f"certificate expires at {valid_until(tls).removeprefix('until ')}: renew its files" in caplog.text


def test_a_process_without_certificates_has_none_to_tell_of() -> None:
    assert valid_until(TlsSettings()) == ""
    assert validity(b"no certificate") is None


def test_metrics_are_read_with_a_certificate_and_one_who_says_nothing_keeps_nobody_waiting(
    signer: Authority, ana: Transport, tmp_path: Path
) -> None:
    tls = issue(tmp_path, signer, f"{SERVICE}judge", HERE)
    address = telemetry.setup_metrics("127.0.0.1:0", tls)
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))):
        assert "qrelay_ready" in metrics_of(address, LONG_S, ana)
    with pytest.raises(OSError):
        metrics_of(address, LONG_S)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"https://{address}/metrics", timeout=LONG_S)
