"""Collections' own slots: what is promoted for one serves no other, and the default slot serves the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrelay.errors import InputError, NotPromotable
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry, State, collection_of, kind_of, slot_of
from tests.models.registry.models import passed, published

MEDQUAD, DOCS = slot_of(BI_ENCODER, "medquad"), slot_of(BI_ENCODER, "python-docs")
OLD = Path(__file__).with_name("default_slots.json")
"""Files of a registry from before collections had slots of their own, as `history` made them."""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def promoted(registry: Registry, weights: str, slot: str) -> str:
    version = passed(registry, published(registry, weights, slot), registry.standing().serving(slot))
    registry.promote(version)
    return version


def serves(registry: Registry, slot: str) -> str:
    served = registry.serving(slot)
    return served.version if served else ""


def test_a_promotion_for_one_collection_touches_no_other_and_not_the_default(registry: Registry) -> None:
    default, docs = promoted(registry, "a", BI_ENCODER), promoted(registry, "b", DOCS)
    first = promoted(registry, "c", MEDQUAD)
    second = promoted(registry, "d", MEDQUAD)
    assert {slot: serves(registry, slot) for slot in (BI_ENCODER, DOCS, MEDQUAD, slot_of(BI_ENCODER, "other"))} == {
        BI_ENCODER: default, DOCS: docs, MEDQUAD: second, slot_of(BI_ENCODER, "other"): default,
    }  # fmt: skip
    assert registry.serving(slot_of(CROSS_ENCODER, "medquad")) is None, "another kind"
    at = registry.standing()
    assert [at.versions[each].state for each in (default, docs, first)] == [
        State.PROMOTED, State.PROMOTED, State.RETIRED,
    ]  # fmt: skip
    serving = registry.serving_all(BI_ENCODER)
    assert {name: found.version for name, found in serving.own.items()} == {"medquad": second, "python-docs": docs}
    assert serving.default is not None and serving.of("other") == serving.default


def test_a_version_of_a_collections_slot_must_pass_against_what_serves_the_collection(registry: Registry) -> None:
    version = passed(registry, published(registry, "a", MEDQUAD))
    default = promoted(registry, "b", BI_ENCODER)
    with pytest.raises(NotPromotable, match=f"{default} serves now"):
        registry.promote(version)
    registry.promote(passed(registry, version, against=default))
    (event,) = [each for each in registry.history() if each.kind == "promoted" and each.slot == MEDQUAD]
    assert event.detail["instead_of"] == default


def test_rolled_back_to_none_a_collection_is_served_by_the_default_slot(registry: Registry) -> None:
    default, first = promoted(registry, "a", BI_ENCODER), promoted(registry, "b", MEDQUAD)
    promoted(registry, "c", MEDQUAD)
    assert registry.rollback(MEDQUAD) == first == serves(registry, MEDQUAD)
    assert registry.rollback(MEDQUAD) == default == serves(registry, MEDQUAD)
    with pytest.raises(NotPromotable, match="the default slot's model serves already"):
        registry.rollback(MEDQUAD)
    assert registry.rollback(BI_ENCODER) == "" == serves(registry, MEDQUAD)


def test_a_rollback_of_the_default_slot_leaves_a_collections_own_version_alone(registry: Registry) -> None:
    promoted(registry, "a", BI_ENCODER)
    own = promoted(registry, "b", MEDQUAD)
    registry.rollback(BI_ENCODER)
    assert (serves(registry, MEDQUAD), serves(registry, BI_ENCODER)) == (own, "")


def test_each_slot_keeps_its_own_latest_models_when_others_are_pruned(registry: Registry) -> None:
    for weights, slot in (("a", MEDQUAD), ("b", MEDQUAD), ("c", BI_ENCODER), ("d", BI_ENCODER)):
        version = published(registry, weights, slot)
        registry.record_gate(version, {"passed": False, "against": ""})
    gone = registry.prune(1)
    assert sorted(registry.standing().versions[version].slot for version in gone) == [BI_ENCODER, MEDQUAD]


def test_a_version_is_named_by_its_slot_and_is_another_in_another_slot(registry: Registry) -> None:
    names = [published(registry, "a", slot) for slot in (BI_ENCODER, MEDQUAD, slot_of(CROSS_ENCODER, "med_quad"))]
    assert [name.rpartition("-")[0] for name in names] == [
        "bi-encoder", "bi-encoder-medquad", "cross-encoder-med_quad",
    ]  # fmt: skip
    assert len({name.rpartition("-")[2] for name in names}) == 3
    assert [registry.manifest(name).slot for name in names] == [BI_ENCODER, MEDQUAD, "cross_encoder:med_quad"]
    assert all(registry.model_dir(name).is_dir() for name in names)


@pytest.mark.parametrize(
    ("slot", "says"),
    [
        ("bi_encodr", "Did you mean 'bi_encoder'"),
        ("bi_encodr:medquad", "Did you mean 'bi_encoder:medquad'"),
        ("bi_encoder:", "the default slot is bi_encoder"),
        ("bi_encoder:../x", "up to 64 of a-z"),
        ("", "it is bi_encoder or cross_encoder"),
    ],
)
def test_a_slot_that_cannot_be_is_refused_with_what_was_meant(registry: Registry, slot: str, says: str) -> None:
    published(registry, "a", MEDQUAD)
    with pytest.raises(InputError, match=says):
        registry.rollback(slot)


def test_a_mistyped_collection_is_told_with_the_slot_that_was_meant(registry: Registry) -> None:
    promoted(registry, "a", MEDQUAD)
    with pytest.raises(NotPromotable, match="Did you mean 'bi_encoder:medquad'"):
        registry.rollback("bi_encoder:medqad")


def test_slots_have_a_kind_and_a_collection_or_none() -> None:
    assert (kind_of(MEDQUAD), collection_of(MEDQUAD)) == (BI_ENCODER, "medquad")
    assert (kind_of(BI_ENCODER), collection_of(BI_ENCODER), slot_of(BI_ENCODER)) == (BI_ENCODER, "", BI_ENCODER)


def history(registry: Registry) -> None:
    """Everything that a registry of default slots records."""
    first = passed(registry, published(registry, "a", collections=("docs",), job="job-1"))
    registry.promote(first, by="ana", reason="better")
    second = passed(registry, published(registry, "b", parent=first), first, why="it rose", rows=[])
    registry.promote(second, by="ana")
    other = passed(registry, published(registry, "c", slot=CROSS_ENCODER, judge="j2"))
    registry.promote(other, by="job job-1")
    registry.rollback(BI_ENCODER, by="ben", reason="slower")
    registry.record_gate(published(registry, "d"), {"passed": False, "against": first, "why": "it fell"})
    registry.retract_judge("j2", by="ana")
    registry.rollback(CROSS_ENCODER, by="ben")
    registry.prune(0, by="ben")


def test_default_slots_are_recorded_byte_by_byte_as_before_there_were_others(tmp_path: Path) -> None:
    clock = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    registry = Registry(tmp_path / "registry", lambda: next(clock))
    history(registry)
    for name, content in json.loads(OLD.read_text()).items():
        made = (registry.folder / name).read_text()
        if name.startswith("versions/"):  # the release that wrote it stands in a manifest
            made, content = ({**json.loads(each), "qrelay": ""} for each in (made, content))
        assert made == content, name


def test_a_registry_from_before_reads_as_it_did(tmp_path: Path) -> None:
    for name, content in json.loads(OLD.read_text()).items():
        path = tmp_path / "registry" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    registry = Registry(tmp_path / "registry")
    found = [(event.kind, event.slot) for event in registry.history()]
    assert found.count(("promoted", BI_ENCODER)) == 2
    first, second, other, fourth = registry.standing().versions.values()
    assert [each.state for each in (first, second, other, fourth)] == [
        State.PROMOTED, State.RETIRED, State.RETIRED, State.REJECTED,
    ]  # fmt: skip
    assert serves(registry, BI_ENCODER) == first.version == serves(registry, MEDQUAD)
    assert registry.serving(CROSS_ENCODER) is None
    assert registry.manifest(first.version).collections == ("docs",)
