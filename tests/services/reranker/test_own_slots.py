"""The reranker scores each collection by the cross-encoder of its own slot, else of the default slot, with real tiny
models whose scores tell them apart."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qrelay.errors import ModelError
from qrelay.models.registry import CROSS_ENCODER as SLOT
from qrelay.models.registry import Registry, slot_of
from qrelay.services.reranker.promoted import Scorers
from qrelay.services.reranker.reranker import Reranker, load_reranker
from qrelay.services.reranker.scorers import CrossEncoderScorer, FakeScorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import CROSS_ENCODER, CandidateSet
from tests import samples, tiny

WORDS = ["how", "to", "do", "thing", "title", "text", *map(str, range(120))]
MEDQUAD, DOCS = slot_of(SLOT, "medquad"), slot_of(SLOT, "docs")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [tiny.cross_encoder(folder / f"c{seed}", WORDS, seed, 48) for seed in (1, 2, 3)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def settings(registry: Registry) -> RerankerSettings:
    return RerankerSettings(registry=registry.folder, max_length=16)


def promoted(registry: Registry, model: Path, slot: str) -> str:
    version = registry.publish(model, slot=slot, base="tiny@1")
    registry.record_gate(version, {"passed": True, "against": registry.standing().serving(slot)})
    registry.promote(version)
    return version


def asked(collection: str, number: int = 0) -> CandidateSet:
    each = samples.candidate_set(number, 12)
    return replace(each, query=replace(each.query, collection=collection))


def models_of(core: Reranker, *collections: str) -> list[str]:
    """Whom the trace of each collection's set names, all scored in one call."""
    found = core.rerank([asked(each, number) for number, each in enumerate(collections)])
    assert [each.query.collection for each in found if isinstance(each, CandidateSet)] == list(collections)
    return [each.trace[-1].model for each in found if isinstance(each, CandidateSet)]


def scores(found: object) -> dict[str, float]:
    assert isinstance(found, CandidateSet)
    return {c.passage.passage_id: c.score(CROSS_ENCODER).score or 0.0 for c in found.candidates}  # type: ignore[union-attr]


def expected(model: Path, each: CandidateSet) -> dict[str, float]:
    scorer = CrossEncoderScorer(f"path:{model}", max_length=48, batch_pairs=8)
    return dict(zip([c.passage.passage_id for c in each.candidates], scorer.score([each])[0], strict=True))


def test_each_collection_is_scored_by_its_own_version_and_the_rest_by_the_default_slots(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    core = load_reranker(settings)
    versions = [promoted(registry, model, slot) for model, slot in zip(models, (SLOT, DOCS, MEDQUAD), strict=True)]
    core.look()
    sets = [asked(name, number) for number, name in enumerate(("medquad", "docs", "other", "medquad"))]
    found = core.rerank(sets)
    for each, answer, model in zip(sets, found, (models[2], models[1], models[0], models[2]), strict=True):
        assert scores(answer) == pytest.approx(expected(model, each), abs=1e-4)
    default, docs, medquad = (f"{version}@registry" for version in versions)
    assert [each.trace[-1].model for each in found if isinstance(each, CandidateSet)] == [
        medquad, docs, default, medquad,
    ]  # fmt: skip
    info = core.info()
    assert info.models == {CROSS_ENCODER: default}
    assert {
        "registry.version": versions[0], "registry.version.docs": versions[1],
        "registry.version.medquad": versions[2], "collection.docs.cross_encoder": docs,
        "collection.medquad.cross_encoder": medquad,
    }.items() <= info.details.items()  # fmt: skip
    assert models_of(load_reranker(settings), "medquad", "docs", "other") == [medquad, docs, default]


def test_a_promotion_for_one_collection_loads_no_other_again_and_rolled_back_to_none_it_has_the_default(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    default, docs = promoted(registry, models[0], SLOT), promoted(registry, models[1], DOCS)
    core = load_reranker(settings)
    before = core._scorers
    medquad = promoted(registry, models[2], MEDQUAD)
    core.look()
    assert models_of(core, "medquad", "docs") == [f"{medquad}@registry", f"{docs}@registry"]
    assert (core._scorers.default, core._scorers.own["docs"]) == (before.default, before.own["docs"])
    own = weakref.ref(core._scorers.own["medquad"])
    registry.rollback(MEDQUAD)
    core.look()
    assert models_of(core, "medquad", "docs") == [f"{default}@registry", f"{docs}@registry"]
    assert not [name for name in core.info().details if "medquad" in name]
    gc.collect()
    assert own() is None, "nobody scores with it any more"


def test_a_damaged_version_of_one_collections_slot_leaves_it_to_the_default_and_is_reported_under_its_name(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    default = promoted(registry, models[0], SLOT)
    core = load_reranker(settings)
    version = promoted(registry, models[1], MEDQUAD)
    (registry.model_dir(version) / "config.json").write_text("{}")
    core.look()
    assert models_of(core, "medquad", "docs") == [f"{default}@registry"] * 2
    details = core.info().details
    assert "config.json has other bytes" in details["registry.problem.medquad"]
    assert "registry.problem" not in details
    with pytest.raises(ModelError, match=r"(?s)has other bytes.*qrelay models rollback cross_encoder:medquad"):
        load_reranker(settings)


def test_a_batch_is_scored_in_one_call_a_model_and_answered_in_its_order(settings: RerankerSettings) -> None:
    class Noting(FakeScorer):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.fingerprint, self.calls = name, list[int]()

        def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
            self.calls.append(len(sets))
            return super().score(sets)

    default, own = Noting("default@1"), Noting("own@1")
    core = Reranker(Scorers(default, {"medquad": own}), settings)
    assert models_of(core, "docs", "medquad", "other", "medquad", "docs") == [
        "default@1", "own@1", "default@1", "own@1", "default@1",
    ]  # fmt: skip
    assert (default.calls, own.calls) == ([3], [2])
