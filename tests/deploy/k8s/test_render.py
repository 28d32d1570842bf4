"""Every overlay and every combination of components builds, and each object is one that an API server takes."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.deploy.k8s.rendering import (
    BESIDE,
    COMPONENTS,
    LABELS,
    OVERLAYS,
    RENDERED,
    WORKLOADS,
    combined,
    containers,
    extended,
    identity,
    named_by,
    of_kind,
)
from tests.deploy.k8s.validation import distinct, problems
from tests.jobs.kubernetes_validation import VERSIONS

JUDGES = ("", "gpu-judge", "openai-judge")
LEDGERS = ("", "postgres", "sqlite")
SERVERS = ("", "nats-single")
REST = (
    "console", "index-build", "reembed", "milvus", "feed", "keda", "telemetry", "training", "kueue", "shared-nfs",
    "nats-auth", "external-secrets", "external-secrets-judge", "external-secrets-training", "external-secrets-nats",
    "feed-tls", "tls",
)  # fmt: skip
"""Components that go with any of the others."""
NOT_TOGETHER = {
    *(("gpu-judge", "openai-judge"), ("sqlite", "postgres")),
    *(("prod", "sqlite"), ("prod", "postgres")),  # its PostgreSQL is outside
}
"""Components, or an overlay and a component, of which an installation has one at most."""


def rows() -> list[tuple[str, ...]]:
    """Choices of components in which each two options come together, and each without the other. Of 8 rows each
    component is in 4, never the first, and no two components in the same 4; each judge gets all 8, with each ledger
    in turn."""
    fours = combinations(range(1, 8), 4)
    chosen_in = {name: next(fours) for name in (*SERVERS[1:], *REST)}
    return [
        tuple(
            filter(
                None, (judge, LEDGERS[(row + shift) % 3], *(each for each, its in chosen_in.items() if row in its))
            )
        )
        for shift, judge in enumerate(JUDGES)
        for row in range(8)
    ]


def exclude(left: str, right: str) -> bool:
    """Whether the two are not meant to be together."""
    return (left, right) in NOT_TOGETHER or (right, left) in NOT_TOGETHER


def test_the_lists_here_name_every_component() -> None:
    assert {*JUDGES, *LEDGERS, *SERVERS, *REST} - {""} | {LABELS} == {*COMPONENTS}


def test_each_two_components_come_together_in_some_row_and_each_without_the_other() -> None:
    chosen = [set(row) for row in rows()]
    for left, right in combinations({*JUDGES, *LEDGERS, *SERVERS, *REST} - {""}, 2):
        ways = {(left in each, right in each) for each in chosen}
        expected = {(False, False), (True, False), (False, True), (True, True)}
        together = exclude(left, right)
        assert ways == expected - ({(True, True)} if together else set()), (left, right)


@pytest.mark.parametrize("judge", JUDGES)
def test_components_combine_with_each_other(judge: str) -> None:
    mine = [row for row in rows() if judge in row or (not judge and not set(row) & {*JUDGES})]
    renderings = [combined(row) for row in mine]
    for row, objects in zip(mine, renderings, strict=True):
        names = [identity(each) for each in objects]
        assert len(names) == len(set(names)), row
    assert not [told for each in distinct(renderings) for told in problems(each, VERSIONS[-1:])]


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name not in BESIDE])
def test_every_component_may_join_every_overlay(overlay: str) -> None:
    has = named_by(overlay)
    joining = [
        each for each in COMPONENTS if each not in has and not any(exclude(each, one) for one in (overlay, *has))
    ]
    renderings = [extended(overlay, each) for each in joining]
    for component, objects in zip(joining, renderings, strict=True):
        names = [identity(each) for each in objects]
        assert len(names) == len(set(names)), (overlay, component)
        for each in of_kind(objects, *WORKLOADS):
            assert all(container.get("image") for container in containers(each)), (overlay, component, identity(each))
    assert not [told for each in distinct(renderings) for told in problems(each, VERSIONS[-1:])]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_that_an_api_server_takes(version: str) -> None:
    assert not [told for each in distinct(RENDERED.values()) for told in problems(each, [version])]
