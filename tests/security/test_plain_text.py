"""Plain text stays on this machine, unless somebody says that it may leave it, and then that is said loudly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qrelay.addresses import plain_postgres
from qrelay.config import NatsSettings, ServiceSettings, Transport
from qrelay.errors import ConfigError, InputError
from qrelay.exitcodes import EXIT_SETUP
from qrelay.index.settings import RetrieverSettings
from qrelay.judging.settings import JudgeSettings
from qrelay.labels.settings import SinkSettings
from qrelay.llm.exchange import GENERATION
from qrelay.runtime import telemetry
from qrelay.runtime.client import get_info
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.security.certs import development, user, variables
from qrelay.security.tls import aio_channel
from qrelay.settings.load import load_settings
from qrelay.training.evaluation.llm import Llm, opened
from tests.pipeline.harness import called, qrelay

EXPOSED: list[tuple[type[ServiceSettings], dict[str, Any], str]] = [
    (ServiceSettings, {"grpc": {"bind": "0.0.0.0:7401"}}, "grpc.bind 0.0.0.0:7401"),
    (ServiceSettings, {"grpc": {"bind": "[::]:7401"}}, "grpc.bind"),
    (ServiceSettings, {"telemetry": {"metrics_bind": "10.0.0.3:7411"}}, "telemetry.metrics_bind"),
    (ServiceSettings, {"nats": {"url": "nats://127.0.0.1:4222,nats://nats-1:4222"}}, "nats.url sends plain text"),
    (SinkSettings, {"ledger": "postgresql://qrelay@db/qrelay"}, "sink.ledger is on another machine"),
    (JudgeSettings, {"cache": "postgresql://qrelay@db/qrelay?sslmode=require"}, "judge.cache is on another machine"),
    (ServiceSettings, {"telemetry": {"otlp_endpoint": "http://collector:4317"}}, "telemetry.otlp_endpoint sends"),
    (JudgeSettings, {"endpoint": {"url": "http://vllm:8000/v1"}}, "judge.endpoint.url sends"),
    (JudgeSettings, {"backend": "openai", "endpoint": {"url": "HTTP://10.0.0.3/v1"}}, "judge.endpoint.url sends"),
    (
        JudgeSettings,
        {"judges": {"big": {"endpoint": {"url": "http://vllm:8000/v1"}}}},
        "judge.judges.big.endpoint.url",
    ),
    (RetrieverSettings, {"http": {"url": "http://search:9200"}}, "retriever.http.url sends"),
    (RetrieverSettings, {"embedder_endpoint": {"url": "http://tei/v1"}}, "retriever.embedder_endpoint.url sends"),
    (RetrieverSettings, {"engine": "milvus", "milvus": {"uri": "http://milvus:19530"}}, "retriever.milvus.uri sends"),
]
CERTIFICATES = {"certificate": "/certs/tls.crt", "key": "/certs/tls.key", "authority": "/certs/ca.crt"}


@pytest.mark.parametrize(("settings", "given", "said"), EXPOSED)
def test_settings_that_let_plain_text_leave_this_machine_are_refused(
    settings: type[ServiceSettings], given: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValidationError, match="or say insecure: true") as refused:
        settings(**given)
    assert said in str(refused.value)
    allowed = settings(**given, insecure=True)
    with caplog.at_level(logging.WARNING):
        telemetry.warn_exposed(allowed)
    assert f"INSECURE: {said}" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"grpc": {"bind": "127.0.0.1:7401"}, "telemetry": {"metrics_bind": "[::1]:7411"}},
        {"telemetry": {"metrics_bind": ":9411"}},
        {"grpc": {"bind": "0.0.0.0:7401"}, "telemetry": {"metrics_bind": "0.0.0.0:0"}, "tls": CERTIFICATES},
        {"nats": {"url": "tls://nats-0:4222,tls://nats-1:4222"}, "tls": CERTIFICATES},
        {"nats": {"url": "nats://localhost:4222,nats://[::1]:4223"}},
    ],
)
def test_what_stays_here_or_is_encrypted_needs_nothing_said(given: dict[str, Any]) -> None:
    assert list(ServiceSettings(**given).exposed) == []


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (ServiceSettings, {"telemetry": {"otlp_endpoint": "https://collector:4317"}}),
        (ServiceSettings, {"telemetry": {"otlp_endpoint": "http://localhost:4317"}}),
        (JudgeSettings, {"endpoint": {"url": "https://vllm:8000/v1"}}),
        (JudgeSettings, {"endpoint": {"url": "http://[::1]:8000/v1"}}),
        (RetrieverSettings, {"milvus": {"uri": "here.db"}, "http": {"url": "http://127.0.0.1:9200"}}),
    ],
)
def test_an_endpoint_here_or_by_its_certificate_needs_nothing_said(
    settings: type[ServiceSettings], given: dict[str, Any]
) -> None:
    assert list(settings(**given).exposed) == []


def test_a_named_host_may_be_asked_in_plain_text_and_no_other_and_each_start_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {"plain_hosts": ["vllm"], "endpoint": {"url": "http://vllm:8000/v1"}}
    with caplog.at_level(logging.WARNING):
        telemetry.warn_exposed(JudgeSettings.model_validate(given))
    assert "INSECURE: judge.endpoint.url" in caplog.text
    for beside in ({"endpoint": {"url": "http://vllm.elsewhere/v1"}}, {"nats": {"url": "nats://vllm:4222"}}):
        with pytest.raises(ValidationError, match="plain text to another machine"):
            JudgeSettings.model_validate({**given, **beside})


def test_the_named_hosts_come_from_a_variable_too() -> None:
    environ = {"QRELAY_JUDGE__PLAIN_HOSTS": '["vllm"]', "QRELAY_JUDGE__ENDPOINT__URL": "http://vllm:8000/v1"}
    assert load_settings(JudgeSettings, "judge", environ=environ).plain_hosts == ("vllm",)


def test_labels_are_published_to_no_hub_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.internal")
    assert list(SinkSettings().exposed) == []
    with pytest.raises(ValidationError, match="HF_ENDPOINT sends plain text"):
        SinkSettings.model_validate({"publish": {"repo": "me/labels"}})


def test_a_judge_with_an_endpoint_in_plain_text_does_not_start_and_its_key_stays() -> None:
    environ = {"QRELAY_JUDGE__BACKEND": "openai", "QRELAY_JUDGE__ENDPOINT__URL": "http://me:secret@vllm:8000/v1"}
    done = qrelay("serve", "judge", environ=environ)
    assert done.returncode == EXIT_SETUP
    assert "judge.endpoint.url sends plain text to another machine: write https://" in done.stderr
    assert "secret" not in done.stderr


def test_an_answer_is_read_in_plain_text_from_another_machine_only_where_that_is_allowed() -> None:
    needs = frozenset({GENERATION})
    with (
        pytest.raises(ConfigError, match="plain text to another machine"),
        opened(Llm("m", url="http://vllm/v1"), needs),
    ):
        pass
    with opened(Llm("m", url="http://vllm/v1", insecure=True), needs):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "ledger.sqlite",
        "sqlite:///srv/ledger.sqlite",
        "postgresql://qrelay@127.0.0.1:5432/qrelay",
        "postgresql:///qrelay",
        "postgresql://qrelay@/qrelay?host=/run/postgresql",
        "postgresql://qrelay@db/qrelay?sslmode=verify-full&sslrootcert=/certs/ca.crt",
        "postgresql+psycopg://qrelay@db/qrelay?sslmode=verify-ca",
    ],
)
def test_a_database_here_or_by_its_certificate_passes(url: str) -> None:
    assert plain_postgres("sink.ledger", url) == ()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1,db/qrelay",
        "postgres://q:p%40w@db:5432/qrelay",
        "postgresql:///q?host=db",
        "postgresql:///q?host=/run/postgresql,db",
        "postgresql://localhost/q?hostaddr=10.0.0.3",
        "postgresql:///q?service=labels",
    ],
)
def test_a_database_elsewhere_is_named_with_what_to_add(url: str) -> None:
    (said,) = plain_postgres("sink.ledger", url)
    assert said.startswith("sink.ledger is on another machine")
    assert "sslmode=verify-full" in said
    assert "p%40w" not in said


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("PGHOST", "db", "postgresql:///qrelay"),
        ("PGHOSTADDR", "10.0.0.3", "postgresql://localhost/qrelay"),
        ("PGSERVICE", "labels", "postgresql://localhost/qrelay"),
    ],
)
def test_a_database_elsewhere_by_a_variable_is_named(
    variable: str, value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert plain_postgres("sink.ledger", url)
    assert plain_postgres("sink.ledger", f"{url}?sslmode=verify-full") == ()


def test_a_variable_of_libpq_that_stays_here_or_is_not_read_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "/run/postgresql")
    monkeypatch.setenv("PGHOSTADDR", "::1")
    assert plain_postgres("sink.ledger", "postgresql:///qrelay") == ()
    monkeypatch.setenv("PGHOST", "db")
    assert plain_postgres("sink.ledger", "postgresql://localhost/qrelay") == ()


def test_libpq_own_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert plain_postgres("sink.ledger", "postgresql://db/qrelay") == ()


@pytest.mark.parametrize("lacking", ["certificate", "key", "authority"])
def test_certificate_key_and_authority_go_together(lacking: str) -> None:
    with pytest.raises(ValidationError, match=f"{lacking} missing"):
        ServiceSettings(tls={name: path for name, path in CERTIFICATES.items() if name != lacking})


def test_a_service_that_is_reached_in_plain_text_does_not_start() -> None:
    done = qrelay("serve", "sink", environ={"QRELAY_SINK__GRPC__BIND": "0.0.0.0:0"})
    assert done.returncode == EXIT_SETUP
    assert "in plain text: set tls; or say insecure: true" in done.stderr


@pytest.mark.parametrize("address", ["judge:7403", "dns:///judge:7403", "ipv4:127.0.0.1:1,10.0.0.3:7403"])
def test_a_command_sends_no_plain_text_to_another_machine(address: str) -> None:
    with pytest.raises(ConfigError, match="is another machine"):
        get_info("judge", address, 1.0)
    with pytest.raises(ConfigError, match="is another machine"):
        aio_channel(address)


async def test_nor_does_a_client_of_the_queues() -> None:
    with pytest.raises(ConfigError, match=r"nats\.url sends plain text"):
        await JetStreamBroker.connect(NatsSettings(url="nats://nats:4222"), name="test", attempts=1)


def test_the_queues_are_reached_as_the_settings_that_name_them() -> None:
    settings = ServiceSettings(tls=CERTIFICATES, nats={"url": "tls://nats:4222"})
    assert settings.nats.transport == settings.transport == Transport(settings.tls)
    assert settings.nats.model_copy(update={"url": "tls://other:4222"}).transport == settings.transport


def test_certificates_of_a_development_authority_are_every_process_own(tmp_path: Path) -> None:
    made = development(tmp_path, people=["ana"])
    assert set(made) > {"judge", "nats", "person-ana"}
    environ = variables(tmp_path, "ana")
    judge = load_settings(JudgeSettings, "judge", environ=environ)
    commands = load_settings(ServiceSettings, "all", environ=environ)
    assert judge.tls.certificate == tmp_path / "judge" / "tls.crt"
    assert commands.tls.certificate == tmp_path / "person-ana" / "tls.crt"
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*.key"))


def test_certs_dev_keeps_its_authority_and_renews_the_rest(tmp_path: Path) -> None:
    for _ in range(2):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.crt")}
        assert called("certs", "dev", "--out", str(tmp_path), "--dns", "judge.qrelay.svc").returncode == 0
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.crt")}
    same = {path.name for path in after if after[path] == before[path]}
    assert same == {"ca.crt"}
    assert len(after) > 8


@pytest.mark.parametrize("name", ["Zoë", "../../x", "", "a b", "x" * 81])
def test_certs_dev_refuses_a_name_that_cannot_be_in_a_certificate(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--person .* cannot be in a certificate"):
        development(tmp_path / "out", people=[name])
    assert not list(tmp_path.iterdir())


def test_a_users_odd_name_becomes_one_that_can_be_in_a_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOGNAME", "../CORP\\Zoë K")
    assert user() == "..-CORP-Zo--K"
    assert "person-..-CORP-Zo--K" in development(tmp_path, people=[user()])


def test_certs_dev_refuses_a_folder_whose_authority_cannot_sign(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    done = called("certs", "dev", "--out", str(tmp_path))
    assert done.returncode == EXIT_SETUP
    assert "holds no authority that signs" in done.stderr


def test_the_certificates_of_some_settings_stay_theirs_when_others_are_read() -> None:
    own = ServiceSettings.model_validate({"tls": CERTIFICATES})
    others = ServiceSettings()
    assert own.nats.transport.tls.enabled
    assert not others.nats.transport.tls.enabled
