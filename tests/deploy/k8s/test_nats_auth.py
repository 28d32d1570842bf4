"""The component nats-auth: each pod has its own key and no other, from Secrets that `qrelay nats accounts` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from qrelay.runtime.natsaccounts import User, write_accounts
from qrelay.runtime.natsserver import find_binary
from tests.deploy.k8s.rendering import WORKLOADS, Object, combined, of_kind, parsed, render

OWN = {
    "retriever": "retriever", "reranker": "reranker", "judge": "judge", "sink": "sink", "console": "console",
    "feed": "feeder", "nats-declare": "declarer",
}  # fmt: skip


def objects(*servers: str) -> list[Object]:
    return of_kind(combined([*servers, "console", "feed", "nats-auth"]), "ConfigMap", *WORKLOADS)


def secrets_of(each: Object) -> set[str]:
    volumes: list[Any] = each["spec"]["template"]["spec"].get("volumes", [])
    return {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}


@pytest.mark.parametrize("servers", [(), ("nats-single",)], ids=["three", "one"])
def test_a_pod_has_its_own_key_and_no_other(servers: tuple[str, ...]) -> None:
    held = {each["metadata"]["name"]: secrets_of(each) for each in of_kind(objects(*servers), *WORKLOADS)}
    assert held.pop("nats") == {"nats-accounts"}
    assert {name: names for name, names in held.items() if names} == {
        name: {f"nats-seed-{user}"} for name, user in OWN.items()
    }


def test_the_command_makes_the_secrets_that_pods_mount(tmp_path: Path) -> None:
    write_accounts(tmp_path)
    made = {each["metadata"]["name"]: each for each in parsed(render(tmp_path))}
    assert {each["metadata"]["namespace"] for each in made.values()} == {"qrelay"}
    assert {*made} == {"nats-accounts", *(f"nats-seed-{user}" for user in User)}
    assert all([*each["data"]] == ["nats.nk"] for name, each in made.items() if name != "nats-accounts")
    assert [*made["nats-accounts"]["data"]] == ["accounts.conf"]


@pytest.mark.parametrize("servers", [(), ("nats-single",)], ids=["three", "one"])
def test_the_server_takes_the_configuration_with_the_users(servers: tuple[str, ...], tmp_path: Path) -> None:
    write_accounts(tmp_path / "accounts")
    (config,) = [each for each in objects(*servers) if each["metadata"]["name"].startswith("nats-config")]
    (tmp_path / "config").mkdir()
    for name, text in config["data"].items():
        (tmp_path / "config" / name).write_text(text)
    entry = tmp_path / "config" / "secured.conf"
    done = subprocess.run(
        [find_binary(), "-t", "-c", str(entry)], capture_output=True, text=True, env={"POD_NAME": "nats-0"}
    )
    assert done.returncode == 0, done.stderr
