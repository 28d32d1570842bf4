"""The reranker follows the registry, with real tiny cross-encoders whose scores tell them apart."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest

from qrelay.errors import ModelError
from qrelay.models.registry import CROSS_ENCODER as SLOT
from qrelay.models.registry import Registry
from qrelay.services.reranker import scorers
from qrelay.services.reranker.reranker import Reranker, load_reranker
from qrelay.services.reranker.scorers import CrossEncoderScorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import BI_ENCODER, CROSS_ENCODER, CandidateSet
from tests import samples, tiny
from tests.conftest import LONG_S

WORDS = ["how", "to", "do", "thing", "title", "text", *map(str, range(120))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two cross-encoders that read 48 tokens."""
    folder = tmp_path_factory.mktemp("models")
    return [tiny.cross_encoder(folder / f"c{seed}", WORDS, seed, 48) for seed in (1, 2)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def settings(registry: Registry) -> RerankerSettings:
    return RerankerSettings(registry=registry.folder, max_length=16)


def promoted(registry: Registry, model: Path) -> str:
    version = registry.publish(model, slot=SLOT, base="tiny@1")
    registry.record_gate(version, {"passed": True, "against": registry.standing().serving(SLOT)})
    registry.promote(version)
    return version


def reranked(core: Reranker, number: int = 0) -> CandidateSet:
    (found,) = core.rerank([samples.candidate_set(number, 12)])
    assert isinstance(found, CandidateSet)
    return found


def scores(found: CandidateSet, system: str = CROSS_ENCODER) -> dict[str, float]:
    return {c.passage.passage_id: c.score(system).score or 0.0 for c in found.candidates}  # type: ignore[union-attr]


def expected(model: Path, number: int = 0) -> dict[str, float]:
    scorer = CrossEncoderScorer(f"path:{model}", max_length=48, batch_pairs=8)
    each = samples.candidate_set(number, 12)
    return dict(zip([c.passage.passage_id for c in each.candidates], scorer.score([each])[0], strict=True))


def test_versions_are_taken_up_as_they_are_promoted_and_the_trace_names_each(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    core = load_reranker(settings)
    assert "fallback" in core.info().details
    assert set(scores(reranked(core), BI_ENCODER)) == set(expected(models[0]))
    for model in models:
        version = promoted(registry, model)
        core.look()
        found = reranked(core)
        assert scores(found) == pytest.approx(expected(model), abs=1e-4)
        assert found.trace[-1].model == f"{version}@registry" == core.info().models[CROSS_ENCODER]
        assert core.info().details["registry.version"] == version
        assert "fallback" not in core.info().details


def test_rollback_returns_to_the_version_before_and_then_to_the_configured_model(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    for model in models:
        promoted(registry, model)
    core = load_reranker(settings)
    assert scores(reranked(core)) == pytest.approx(expected(models[1]), abs=1e-4), "loaded at start"
    registry.rollback(SLOT)
    core.look()
    assert scores(reranked(core)) == pytest.approx(expected(models[0]), abs=1e-4)
    registry.rollback(SLOT)
    core.look()
    assert scores(reranked(core), BI_ENCODER) and "fallback" in core.info().details
    assert "registry.version" not in core.info().details


def test_a_damaged_version_leaves_the_former_in_service_says_so_and_is_tried_again(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    core = load_reranker(settings.model_copy(update={"registry_poll_s": 1e-6}))
    promoted(registry, models[0])
    core.look()
    version = promoted(registry, models[1])
    config = registry.model_dir(version) / "config.json"
    whole = config.read_bytes()
    config.write_bytes(b"{}")
    core.look()
    assert scores(reranked(core)) == pytest.approx(expected(models[0]), abs=1e-4)
    assert "config.json has other bytes" in core.info().details["registry.problem"]
    config.write_bytes(whole)
    core.look()
    assert scores(reranked(core)) == pytest.approx(expected(models[1]), abs=1e-4)
    assert "registry.problem" not in core.info().details


def test_a_version_that_no_library_can_load_is_not_tried_at_every_look(
    settings: RerankerSettings, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "config.json").write_text('{"model_type": "no such model"}')
    core = load_reranker(settings.model_copy(update={"registry_poll_s": 3600.0}))
    version = promoted(registry, tmp_path / "junk")
    core.look()
    problem = core.info().details["registry.problem"]
    assert version in problem and "cannot load" in problem
    (registry.model_dir(version) / "config.json").unlink()
    core.look()
    assert core.info().details["registry.problem"] == problem, "another try would have said that a file is missing"


def test_a_start_with_a_damaged_version_fails_and_says_how_to_roll_back(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    version = promoted(registry, models[0])
    (registry.model_dir(version) / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=rf"(?s){version}.*has other bytes.*qrelay models rollback cross_encoder"):
        load_reranker(settings)
    registry.rollback(SLOT)
    assert "fallback" in load_reranker(settings).info().details, "what the text says helps"


@pytest.mark.parametrize("changes", [{"registry_poll_s": 0}, {"scorer": "bi_encoder"}, {"scorer": "fake"}])
def test_the_registry_is_left_aside_where_the_settings_say_so(
    settings: RerankerSettings, registry: Registry, models: list[Path], changes: dict[str, object]
) -> None:
    version = promoted(registry, models[0])
    core = load_reranker(RerankerSettings.model_validate({**settings.model_dump(), **changes}))
    core.look()
    assert version not in str(core.info())


def test_a_call_in_flight_finishes_on_the_scorer_that_it_began_with_which_is_then_freed(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    began, go_on, answers = threading.Event(), threading.Event(), []

    class Slow(scorers.FakeScorer):
        fingerprint = "slow@1"

        def score(self, sets: object) -> list[list[float]]:
            began.set()
            assert go_on.wait(LONG_S)
            return super().score(sets)  # type: ignore[arg-type]

    slow = Slow()
    former = weakref.ref(slow)
    following = load_reranker(settings)
    core = Reranker(slow, settings, following._promoted)
    del slow
    calling = threading.Thread(target=lambda: answers.append(reranked(core)))
    calling.start()
    assert began.wait(LONG_S)
    version = promoted(registry, models[0])
    core.look()
    assert reranked(core).trace[-1].model == f"{version}@registry"
    assert former() is not None
    go_on.set()
    calling.join(LONG_S)
    assert answers[0].trace[-1].model == "slow@1"
    assert scores(answers[0]) == scores(reranked(Reranker(scorers.FakeScorer(), settings)))
    gc.collect()
    assert former() is None


def test_a_replaced_models_weights_are_freed_though_the_collector_was_told_to_spare_them(
    settings: RerankerSettings, registry: Registry, models: list[Path]
) -> None:
    promoted(registry, models[0])
    core = load_reranker(settings)
    weights = weakref.ref(core._scorers.default._pairs.model)  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()
    promoted(registry, models[1])
    core.look()
    waiting = threading.Event()
    for _ in range(500):
        if weights() is None:
            break
        waiting.wait(0.02)
    assert weights() is None
