"""docs/security.md lists every port that anything listens on, and each row names tests that exist."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from qrelay.settings.sections import settings_classes
from tests.deploy.k8s.rendering import RENDERED, ROOT, WORKLOADS, containers, of_kind

COLUMNS = ("endpoint", "setting", "ports", "who may", "what stops others", "test")


def rows() -> list[dict[str, str]]:
    """The table of endpoints."""
    section = (ROOT / "docs" / "security.md").read_text("utf8").partition("\n## Endpoints\n")[2]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(header) == COLUMNS
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in body]


def binds(settings: type[BaseModel], path: str = "") -> set[str]:
    """Settings that are an address to listen on, by their path in a section."""
    found = set()
    for name, field in settings.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= binds(kind, f"{path}{name}.")
        elif name.endswith("bind"):
            found.add(f"{path}{name}")
    return found


def test_every_row_says_who_may_what_stops_others_and_names_tests_that_exist() -> None:
    for row in rows():
        assert row["endpoint"] and row["who may"] and row["what stops others"], row
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row["test"])
        assert named, row
        for file, test in named:
            assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text("utf8"), re.MULTILINE), (
                file,
                test,
            )


def test_every_setting_that_is_listened_on_is_in_the_table() -> None:
    told = {row["setting"].strip("`") for row in rows()} - {""}
    assert {name for settings in settings_classes().values() for name in binds(settings)} == told


def test_every_port_of_every_container_is_in_the_table_once() -> None:
    told = [int(port) for row in rows() for port in row["ports"].split(",")]
    assert len(told) == len(set(told))
    opened = {
        port["containerPort"]
        for objects in RENDERED.values()
        for workload in of_kind(objects, *WORKLOADS)
        for container in containers(workload)
        for port in container.get("ports", [])
    }
    assert opened == set(told) - {7415}  # the console's metrics, which no other pod reaches
