"""The registry: versions, the gate's verdicts, promotion, rollback, taint; two deciders at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qrelay.errors import InputError, ModelError, NotPromotable
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry, State
from qrelay.models.registry.staging import Staging
from tests.models.registry.models import a_model, passed, published


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_published_version_is_a_candidate_that_does_not_serve(registry: Registry) -> None:
    version = published(registry, "a")
    assert registry.standing().versions[version].state is State.CANDIDATE
    assert registry.serving(BI_ENCODER) is None
    registry.verify(version)


def test_publishing_the_same_again_changes_nothing(registry: Registry) -> None:
    assert published(registry, "a") == published(registry, "a")
    assert len(registry.history()) == 1


def test_only_what_passed_the_gate_is_promoted(registry: Registry) -> None:
    version = published(registry, "a")
    with pytest.raises(InputError, match="not been through the gate"):
        registry.promote(version)
    registry.record_gate(version, {"passed": False, "against": "", "why": "nDCG@10 fell"})
    assert registry.standing().versions[version].state is State.REJECTED
    with pytest.raises(InputError, match="nDCG@10 fell"):
        registry.promote(version)
    assert registry.promote(passed(registry, version))
    served = registry.serving(BI_ENCODER)
    assert served is not None and served.version == version
    assert (served.path / "sub" / "weights").read_text() == "a"


def test_a_pass_against_a_former_version_is_not_enough(registry: Registry) -> None:
    first, second = passed(registry, published(registry, "a")), passed(registry, published(registry, "b"))
    registry.promote(first)
    with pytest.raises(InputError, match="serves now"):
        registry.promote(second)
    registry.promote(passed(registry, second, against=first))
    assert registry.standing().versions[first].state is State.RETIRED


def test_rollback_brings_the_former_bytes_back_and_then_the_configured_model(registry: Registry) -> None:
    first, second = published(registry, "a"), published(registry, "b")
    registry.promote(passed(registry, first))
    registry.promote(passed(registry, second, against=first))
    assert registry.rollback(BI_ENCODER) == first
    served = registry.serving(BI_ENCODER)
    assert served is not None and (served.path / "sub" / "weights").read_text() == "a"
    assert registry.rollback(BI_ENCODER) == ""
    assert registry.serving(BI_ENCODER) is None
    with pytest.raises(InputError, match="nothing is promoted"):
        registry.rollback(BI_ENCODER)


def interrupted(registry: Registry, other: Callable[[], object]) -> Registry:
    """The same registry for somebody who is overtaken, once, between their decision and its record."""
    left = [other]

    def clock() -> int:
        if left:
            left.pop()()
        return time.time_ns() // 1000

    return Registry(registry.folder, clock)


def test_a_verdict_that_changes_while_somebody_promotes_is_read_again_first(registry: Registry) -> None:
    version = passed(registry, published(registry, "a"))
    read = registry.standing().last
    late = interrupted(registry, lambda: passed(registry, version, why="measured again"))
    with pytest.raises(InputError, match="has decided about"):
        late.promote(version, read=read)
    assert registry.serving(BI_ENCODER) is None
    assert registry.promote(version, read=registry.standing().last)


def test_of_two_who_roll_back_at_once_one_is_told_that_another_version_serves(registry: Registry) -> None:
    first, second = published(registry, "a"), published(registry, "b")
    registry.promote(passed(registry, first))
    registry.promote(passed(registry, second, against=first))
    late = interrupted(registry, lambda: registry.rollback(BI_ENCODER, instead_of=second))
    with pytest.raises(InputError, match=f"{first} serves as"):
        late.rollback(BI_ENCODER, instead_of=second)
    assert registry.standing().serving(BI_ENCODER) == first


def test_slots_do_not_meet(registry: Registry) -> None:
    registry.promote(passed(registry, published(registry, "a")))
    assert registry.serving(CROSS_ENCODER) is None


def test_damaged_bytes_are_never_promoted(registry: Registry) -> None:
    version = passed(registry, published(registry, "a"))
    (registry.model_dir(version) / "sub" / "weights").write_text("x")
    with pytest.raises(ModelError, match="sub/weights has other bytes"):
        registry.promote(version)


def test_descendants_of_a_retracted_judge_are_tainted_and_not_promoted(registry: Registry) -> None:
    first = published(registry, "a", judge="bad")
    child = published(registry, "b", parent=first, judge="good")
    other = published(registry, "c", judge="good")
    assert registry.retract_judge("bad", reason="prompt was wrong")
    assert not registry.retract_judge("bad")
    assert registry.taints() == {first: ["bad"], child: ["bad"]}
    with pytest.raises(InputError, match="retracted judges"):
        registry.promote(passed(registry, child))
    registry.promote(passed(registry, other))
    assert registry.restore_judge("bad")
    assert registry.taints() == {}


def test_a_folder_left_by_a_killed_publication_is_taken_up(registry: Registry) -> None:
    version = published(registry, "a")
    for event in (registry.folder / "events").iterdir():
        event.unlink()  # killed between the folder and its event
    again = Registry(registry.folder)
    assert again.standing().versions == {}
    assert published(again, "a") == version
    assert list(again.standing().versions) == [version]


def test_of_two_promotions_at_once_one_is_decided_after_the_other(registry: Registry) -> None:
    versions = [passed(registry, published(registry, name)) for name in "abcd"]
    refused: list[str] = []
    barrier = threading.Barrier(len(versions))

    def promote(version: str) -> None:
        own = Registry(registry.folder)
        barrier.wait()
        try:
            own.promote(version)
        except InputError:
            refused.append(version)

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = registry.serving(BI_ENCODER)
    assert served is not None
    assert sorted([served.version, *refused]) == sorted(versions)


def test_a_folder_without_a_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        registry.publish(tmp_path / "none", slot=BI_ENCODER, base="b")
    with pytest.raises(InputError, match="slot"):
        registry.publish(a_model(tmp_path / "m", "x"), slot="reader", base="b")


def test_a_pruned_version_keeps_its_manifest_says_so_and_is_not_promoted(registry: Registry) -> None:
    bad, kept = published(registry, "a"), published(registry, "b")
    for version in (bad, kept):
        registry.record_gate(version, {"passed": False, "against": ""})
    assert list(registry.prune(1, dry_run=True)) == [bad]
    assert registry.model_dir(bad).exists()
    assert list(registry.prune(1)) == [bad]
    assert not registry.model_dir(bad).exists() and registry.model_dir(kept).exists()
    assert registry.manifest(bad).files and registry.standing().versions[bad].pruned
    registry.record_gate(bad, {"passed": True, "against": ""})
    with pytest.raises(NotPromotable, match="was pruned"):
        registry.promote(bad)
    assert registry.prune(1) == {}


def test_publishing_a_pruned_version_again_brings_its_model_back(registry: Registry) -> None:
    version = published(registry, "a")
    registry.record_gate(version, {"passed": False, "against": ""})
    registry.prune(0)
    assert published(registry, "a") == version
    registry.verify(version)
    assert registry.promote(passed(registry, version))


def test_what_serves_or_can_be_rolled_back_to_is_never_pruned(registry: Registry) -> None:
    first, second, candidate = (published(registry, name) for name in "abc")
    registry.promote(passed(registry, first))
    registry.promote(passed(registry, second, against=first))
    assert registry.prune(0) == {}
    assert registry.rollback(BI_ENCODER) == first
    assert list(registry.prune(0)) == [second]
    for version in (first, candidate):
        registry.verify(version)


def test_leavings_of_dead_processes_are_removed_by_the_next_publication(registry: Registry) -> None:
    published(registry, "a")
    staging = registry.folder / "staging"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    own = Staging(staging).path("bi-encoder-0000000000")
    machine = own.name.split(".")[1]
    now = time.time_ns()
    names = {
        f"v.{machine}.{dead.stdout.strip()}.{now}": False,
        f"v.{machine}.{os.getpid()}.{now}": True,
        f"v.00000000.1.{now}": True,
        f"v.00000000.1.{now - 25 * 3600 * 10**9}": False,
    }
    for name in names:
        (staging / name).mkdir()
    published(registry, "b")
    assert {name: (staging / name).exists() for name in names} == names


def test_an_event_of_a_newer_qrelay_is_refused_in_words(registry: Registry) -> None:
    published(registry, "a")
    first = registry.folder / "events" / "00000001.json"
    (registry.folder / "events" / "00000002.json").write_text(first.read_text().replace("published", "melted"))
    with pytest.raises(ModelError, match="'melted', of a newer qrelay"):
        Registry(registry.folder).standing()


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "promoted", "version": "bi-encoder-nobody"},
        {"kind": "gated", "detail": {"passed": "yes"}},
        {"detail": None},
        {"at_us": 10**30},
    ],
)
def test_a_damaged_event_is_named_with_what_to_do(registry: Registry, damage: dict[str, object]) -> None:
    passed(registry, published(registry, "w1"))
    last = max((registry.folder / "events").glob("*.json"))
    last.write_text(json.dumps({**json.loads(last.read_text()), **damage}))
    with pytest.raises(ModelError, match="restore the registry from a backup"):
        Registry(registry.folder).standing()
