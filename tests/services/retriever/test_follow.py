"""The retriever follows the registry: engine and embedder switch as one, back at once, never to another model."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import ModelError
from qrelay.index.build import BuildResult
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.reembed import reembed
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder
from qrelay.models.registry import BI_ENCODER, Registry
from qrelay.models.served import load_version
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.types import DENSE, CandidateSet, Query
from tests.conftest import LONG_S
from tests.index.documents import made_up
from tests.services.retriever.versions import Held, load, promoted

Build = Callable[..., BuildResult]
ASKED = Query("q", "word1 word2 word3", "tiny")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def waiting(build: Build, settings: RetrieverSettings, registry: Registry) -> RetrieverSettings:
    """Of a replica that does not re-embed itself, over a collection `tiny`."""
    build(made_up(30))
    return settings.model_copy(update={"reembed": False, "registry": registry.folder})


def home(settings: RetrieverSettings) -> Path:
    return settings.index_folder / "tiny"


def elsewhere(settings: RetrieverSettings) -> None:
    """What `qrelay index reembed --model registry` does."""
    registry = Registry(settings.registry_folder)
    served = registry.serving(BI_ENCODER)
    assert served is not None
    reembed(home(settings), load_version(registry, served.version, load))


def found(retriever: Retriever) -> CandidateSet:
    (result,) = retriever.retrieve([ASKED])
    assert isinstance(result, CandidateSet)
    return result


def dense(found: CandidateSet) -> dict[str, float]:
    return {c.passage.passage_id: c.score(DENSE).score or 0.0 for c in found.candidates}  # type: ignore[union-attr]


def test_a_promoted_version_serves_once_it_has_its_own_vectors(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(waiting, load)
    before = found(retriever)
    version = promoted(registry, 3)
    retriever.look()
    assert found(retriever) == before, "the old pair serves until the new one is whole"
    assert retriever.info().details["reembedding.tiny"] == "waits for `qrelay index reembed --model registry`"
    elsewhere(waiting)
    retriever.look()
    after = found(retriever)
    assert dense(after) == {name: 9 * score for name, score in dense(before).items()}
    assert after.trace[-1].model == f"{version}@registry" == retriever.info().models["embedder"]
    facts = read_manifest(current_folder(home(waiting)))
    assert (after.index_version, facts.embedder) == (facts.version, f"{version}@registry")
    assert "reembedding.tiny" not in retriever.info().details
    assert retriever.info().details["registry.version"] == version


def test_rollback_switches_at_once_to_the_version_on_disk_and_to_the_configured_model(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(waiting, load)
    answers = [found(retriever)]
    for factor in (2, 3):
        promoted(registry, factor)
        elsewhere(waiting)
        retriever.look()
        answers.append(found(retriever))
    for expected in (answers[1], answers[0]):
        registry.rollback(BI_ENCODER)
        retriever.look()
        assert found(retriever) == expected
    assert answers[0].trace[-1].model == "hash@1"


def test_requests_go_on_with_the_former_pair_while_the_new_model_is_loaded(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    held = Held()
    retriever = load_retriever(waiting, held)
    before = found(retriever)
    version = promoted(registry, 2)
    elsewhere(waiting)
    looking = threading.Thread(target=retriever.look)
    looking.start()
    assert held.loading.wait(LONG_S)
    assert [found(retriever) for _ in range(5)] == [before] * 5
    held.let_go.set()
    looking.join(LONG_S)
    assert found(retriever).trace[-1].model == f"{version}@registry"


def test_a_call_alone_starts_the_load_that_the_new_index_needs(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    """Where nothing runs beside the calls, as with registry_poll_s 0: an index of a version is served with it."""
    retriever = load_retriever(waiting.model_copy(update={"registry_poll_s": 0}), load)
    version = promoted(registry, 2)
    elsewhere(waiting)
    deadline = threading.Event()
    for _ in range(2000):
        if found(retriever).trace[-1].model == f"{version}@registry":
            break
        deadline.wait(0.01)
    assert found(retriever).trace[-1].model == f"{version}@registry"


def test_a_damaged_version_leaves_the_former_in_service_says_so_and_is_tried_again(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(waiting.model_copy(update={"registry_poll_s": 1e-6}), load)
    before = found(retriever)
    version = promoted(registry, 2)
    elsewhere(waiting)
    config = registry.model_dir(version) / "config.json"
    whole = config.read_bytes()
    config.write_bytes(whole + b" ")
    retriever.look()
    assert found(retriever) == before
    assert "config.json has other bytes" in retriever.info().details["collection.tiny.problem"]
    config.write_bytes(whole)
    retriever.look()
    assert found(retriever).trace[-1].model == f"{version}@registry"
    assert "collection.tiny.problem" not in retriever.info().details


def test_a_start_with_a_damaged_version_fails_and_says_how_to_roll_back(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    version = promoted(registry, 2)
    elsewhere(waiting)
    (registry.model_dir(version) / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=rf"(?s){version}.*has other bytes.*qrelay models rollback bi_encoder"):
        load_retriever(waiting, load)
    registry.rollback(BI_ENCODER)
    assert found(load_retriever(waiting, load)).trace[-1].model == "hash@1", "what the text says helps"


def test_an_unreadable_registry_is_reported_and_the_index_serves(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(waiting, load)
    before = found(retriever)
    promoted(registry, 2)
    (registry.folder / "events" / "00000002.json").write_text("{")
    retriever.look()
    assert found(retriever) == before
    assert "is damaged" in retriever.info().details["registry.problem"]


def test_a_service_without_an_index_starts_with_the_promoted_model_in_memory(
    settings: RetrieverSettings, registry: Registry
) -> None:
    version = promoted(registry, 2)
    retriever = load_retriever(settings.model_copy(update={"registry": registry.folder}), load)
    assert retriever.info().models == {"embedder": f"{version}@registry"}


def test_the_former_model_is_freed_when_the_last_call_with_it_has_ended(
    waiting: RetrieverSettings, registry: Registry
) -> None:
    held: list[weakref.ref[Embedder]] = []

    def remembering(name: str, **options: Any) -> Embedder:
        embedder = load(name, **options)
        held.append(weakref.ref(embedder))
        return embedder

    retriever = load_retriever(waiting, remembering)
    promoted(registry, 2)
    elsewhere(waiting)
    retriever.look()
    gc.collect()
    assert [reference() is None for reference in held] == [True, False]
