"""NATS servers that allow too little, each a real one: the limit is named, with what to set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsserver import NatsServer

GIB = 1024**3
LIMITED = {
    "a small max_payload": ("max_payload: 65536", "max_payload is 65536 bytes, and nats.max_message_bytes"),
    "no JetStream": ("", "JetStream is off at this NATS server: add `jetstream {}`"),
    "a small store": ("jetstream {{ store_dir: {folder}, max_file_store: 1GB }}", "max_file_store"),
    "few streams": ("max_streams: 3", "raise its max_streams"),
    "a small account": ("max_file: 1GB", "the account's max_file"),
    "small streams": ("disk_max_stream_bytes: 1GB", "disk_max_stream_bytes is below nats.max_stream_bytes"),
    "few messages held": ("max_ack_pending: 100", "below nats.max_ack_pending"),
    "an account without JetStream": ("none", "JetStream is off for this user's account"),
}
"""What is limited -> the server's or the account's setting, and what the error names."""


class LimitedServer(NatsServer):
    """A server as somebody else configured it. It may store more than the disk has free, so that what is limited is
    the only limit."""

    def __init__(self, folder: Path, limit: str) -> None:
        super().__init__(folder)
        self._limit = limit.format(folder=folder / "jetstream")

    def _config(self) -> str:
        head = f"listen: 127.0.0.1:{self._port}\n"
        store = f"jetstream {{ store_dir: {self._folder / 'jetstream'}, max_file_store: 100GB }}\n"
        if self._limit == "" or self._limit.startswith("jetstream"):
            return head + self._limit
        if self._limit.startswith("max_payload"):
            return head + store + self._limit
        account = "" if self._limit == "none" else f"jetstream {{ max_mem: 0, max_file: 100GB, {self._limit} }}"
        return f"{head}{store}accounts {{ A {{ users: [{{ user: a, password: b }}], {account} }} }}\nno_auth_user: a"


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[[str], NatsServer]]:
    started: list[NatsServer] = []

    def start(kind: str) -> NatsServer:
        started.append(LimitedServer(tmp_path / "nats", LIMITED[kind][0]))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.mark.parametrize("kind", LIMITED)
async def test_a_limit_below_the_settings_is_named_with_what_to_set(
    kind: str, limited: Callable[[str], NatsServer]
) -> None:
    settings = NatsSettings(url=limited(kind).url)
    for owner in (True, False):
        if owner or kind in ("a small max_payload", "no JetStream", "an account without JetStream"):
            with pytest.raises(ConfigError, match=LIMITED[kind][1]):
                await JetStreamBroker.connect(settings, name="test", attempts=2, owner=owner)
        else:  # only who declares learns it
            with pytest.raises(BackendUnavailable, match="the services declare them"):
                await JetStreamBroker.connect(settings, name="test", attempts=2)


async def test_copies_without_a_cluster_are_named(nats_settings: NatsSettings) -> None:
    settings = nats_settings.model_copy(update={"replicas": 3})
    with pytest.raises(ConfigError, match=r"nats\.replicas is above 1, and this server belongs to no cluster"):
        await JetStreamBroker.connect(settings, name="test", attempts=2, owner=True)


async def test_a_server_whose_limit_was_raised_serves_who_waited(
    limited: Callable[[str], NatsServer], tmp_path: Path
) -> None:
    server = limited("a small max_payload")
    said: list[str] = []

    def raise_it(error: Exception) -> None:
        if not said:
            server.kill()
            server._limit = "max_payload: 1048576"  # type: ignore[attr-defined]
            server.start()
        said.append(str(error))

    settings = NatsSettings(url=server.url)
    async with await JetStreamBroker.connect(
        settings, name="service", attempts=100, owner=True, failed=raise_it
    ) as broker:
        assert len(await broker.stats()) == 5
    assert "max_payload" in said[0]


async def test_credentials_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings = NatsSettings(url="nats://127.0.0.1:9", credentials=tmp_path / "absent.creds")
    with pytest.raises(ConfigError, match=r"nats\.credentials .*absent\.creds is no file"):
        await JetStreamBroker.connect(settings, name="test", attempts=2)
