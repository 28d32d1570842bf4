"""compose.yaml: its files exist, its settings hold, its commands parse, its containers are restricted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.models.catalogue import load_catalogue
from qrelay.runtime.natsserver import find_binary
from qrelay.settings import load_settings
from qrelay.settings.sections import CLASSES, SERVICES, settings_of
from scripts.recipes import FOLDER, IMAGES, read

FILES = ("compose.yaml", "compose.postgres.yaml")
BUILT = {f"qrelay-{name}" for name in IMAGES}


def with_defaults(text: str) -> str:
    """`${NAME:-default}` as its default, `${NAME:?message}` as some word: what compose makes of them by itself."""
    return re.sub(r"\$\{\w+:\?[^}]*\}", "given", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def load(*files: str) -> dict[str, Any]:
    """The files, the later over the earlier as compose merges them (as far as these need it)."""
    merged: dict[str, Any] = {"services": {}, "volumes": {}}
    for file in files:
        document = yaml.safe_load(with_defaults((FOLDER / file).read_text("utf8")))
        merged["volumes"] |= document["volumes"]
        for name, service in document["services"].items():
            known = merged["services"].setdefault(name, {})
            both = {
                key: {**known[key], **service[key]}
                for key in ("environment", "depends_on")
                if key in known and key in service
            }
            merged["services"][name] = {**known, **service, **both}
    return merged


VARIANTS = [load("compose.yaml"), load(*FILES)]
VARIED = [
    pytest.param(name, service, id=f"{name}-{variant}")
    for variant, document in zip(("sqlite", "postgres"), VARIANTS, strict=True)
    for name, service in document["services"].items()
]
each_service = pytest.mark.parametrize(("name", "service"), VARIED)


def test_the_four_services_are_there_beside_nats() -> None:
    assert {*SERVICES, "nats"} <= VARIANTS[0]["services"].keys()


@pytest.mark.parametrize("document", VARIANTS, ids=["sqlite", "postgres"])
def test_what_a_service_waits_for_and_mounts_exists(document: dict[str, Any]) -> None:
    for name, service in document["services"].items():
        assert set(service.get("depends_on", {})) <= document["services"].keys(), name
        for source, target in mounts(service):
            assert target.startswith("/")
            present = (FOLDER / source).is_file() if source.startswith(".") else source in document["volumes"]
            assert present, (name, source)


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Source and target of each volume."""
    for volume in service.get("volumes", []):
        source, target, *_ = volume.split(":")
        yield source, target


@each_service
def test_an_image_is_built_here_or_pinned_by_digest(name: str, service: dict[str, Any]) -> None:
    if build := service.get("build"):
        assert (FOLDER / build["context"] / build["dockerfile"]).samefile(FOLDER / f"{name}.Dockerfile")
        assert set(build["args"]) <= read(name).arguments.keys()
    built_elsewhere = service["image"] in BUILT and service.get("pull_policy") == "never"
    assert build or built_elsewhere or re.search(r"@sha256:[0-9a-f]{64}$", service["image"])


def test_each_image_is_built_once() -> None:
    building = [service["image"] for service in VARIANTS[0]["services"].values() if "build" in service]
    assert sorted(building) == sorted(BUILT)


@each_service
def test_a_container_can_write_only_where_it_is_told_to(name: str, service: dict[str, Any]) -> None:
    user, _, group = service["user"].partition(":")
    assert int(user) > 0 and int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "cap_add" not in service


@each_service
def test_ports_are_published_on_this_machine_only(name: str, service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("section", CLASSES)
@pytest.mark.parametrize("document", VARIANTS, ids=["sqlite", "postgres"])
def test_the_settings_hold_and_every_variable_names_one(document: dict[str, Any], section: str) -> None:
    environ = {"QRELAY_CONFIG": str(FOLDER / "qrelay.yaml")}
    for service in document["services"].values():
        given = service.get("environment", {})
        environ |= {key: value for key, value in given.items() if key not in ("QRELAY_CONFIG", "QRELAY_DATA_DIR")}
    settings = load_settings(settings_of(section), section, environ=environ)
    assert str(settings.data_dir) == "/srv/qrelay/state"
    sections = {name.partition("__")[0].removeprefix("QRELAY_").lower() for name in environ if "__" in name}
    assert sections <= {"all", *CLASSES}


@pytest.mark.parametrize("name", SERVICES)
def test_the_doors_are_where_probes_and_ports_look(name: str) -> None:
    service = VARIANTS[0]["services"][name]
    settings = load_settings(settings_of(name), name, file=FOLDER / "qrelay.yaml", environ={})
    grpc, metrics = settings.grpc.bind.rpartition(":")[2], settings.telemetry.metrics_bind.rpartition(":")[2]
    assert service["healthcheck"]["test"] == ["CMD", "qrelay", "healthcheck", f"127.0.0.1:{grpc}"]
    assert service["ports"] == [f"127.0.0.1:{grpc}:{grpc}", f"127.0.0.1:{metrics}:{metrics}"]
    assert read(name).said("EXPOSE") == [f"{grpc} {metrics}"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_given_longer_to_stop_than_its_service_takes(name: str) -> None:
    settings = load_settings(settings_of(name), name, file=FOLDER / "qrelay.yaml", environ={})
    assert int(VARIANTS[0]["services"][name]["stop_grace_period"].removesuffix("s")) >= settings.worker.drain_s + 20


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sees_the_folders_that_its_settings_name(name: str) -> None:
    settings = load_settings(settings_of(name), name, file=FOLDER / "qrelay.yaml", environ={})
    targets = {target for _, target in mounts(VARIANTS[0]["services"][name])}
    wanted = {"retriever": {"/srv/qrelay/index", "/srv/qrelay/models"}, "reranker": {"/srv/qrelay/models"},
              "judge": {"/srv/qrelay/models", str(settings.data_dir)}, "sink": {str(settings.data_dir)}}  # fmt: skip
    assert wanted[name] <= targets
    if name != "judge":  # the only one that never looks at the registry
        assert str(settings.registry_folder) in targets


@each_service
def test_what_a_container_runs_is_a_command_with_these_options(name: str, service: dict[str, Any]) -> None:
    if service["image"] not in BUILT:
        return
    command = service["command"]
    words = [
        *service.get("entrypoint", ["qrelay"])[1:],
        *(shlex.split(command) if isinstance(command, str) else command),
    ]
    path = words[: 2 if words[0] in ("index", "models") else 1]
    shown = CliRunner().invoke(qrelay, [*(word for word in path if word[0] != "-"), "--help"])
    assert shown.exit_code == 0, shown.output
    assert all(word in shown.output for word in words if word.startswith("--"))


def test_the_models_that_are_fetched_are_those_that_the_settings_name() -> None:
    fetched = set(VARIANTS[0]["services"]["models"]["command"].split())
    named = [("judge", "model"), ("retriever", "embedder")]
    files = [
        (load_settings(settings_of(name), name, file=FOLDER / "qrelay.yaml", environ={}), key) for name, key in named
    ]
    assert fetched == {settings.model_dump()[key] for settings, key in files}
    assert fetched <= load_catalogue().keys()


def test_the_nats_server_accepts_its_configuration_and_syncs_always(tmp_path: Path) -> None:
    text = (FOLDER / "nats.conf").read_text("utf8")
    config = tmp_path / "nats.conf"
    config.write_text(text.replace("/data", json.dumps(str(tmp_path / "data"))))
    shown = subprocess.run([find_binary(), "-c", str(config), "-t"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "sync_interval: always" in text
