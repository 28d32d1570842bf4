"""The retriever serves each collection with the embedder of its own slot, else of the default slot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import InputError
from qrelay.index import reembed_job
from qrelay.index.build import BuildResult
from qrelay.index.reembed import reembed
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder
from qrelay.models.registry import BI_ENCODER, Registry, slot_of
from qrelay.models.served import load_version
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.types import DENSE, CandidateSet, Query
from tests.conftest import LONG_S
from tests.index.documents import made_up
from tests.services.retriever.versions import Held, load, promoted

COLLECTIONS = ("docs", "medquad", "other")
DOCS, MEDQUAD = slot_of(BI_ENCODER, "docs"), slot_of(BI_ENCODER, "medquad")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def settings(build: Callable[..., BuildResult], settings: RetrieverSettings, registry: Registry) -> RetrieverSettings:
    """Of a replica that does not re-embed itself, over three collections of the same documents."""
    for name in COLLECTIONS:
        build(made_up(30), collection=name)
    return settings.model_copy(update={"reembed": False, "registry": registry.folder})


def elsewhere(settings: RetrieverSettings, *collections: str) -> dict[str, str]:
    """`qrelay index reembed --model registry`: collection -> the embedder that it serves with from now on."""
    job = reembed_job.Job(settings.index_folder, collections, "registry", settings.registry_folder)
    return {row["collection"]: row["embedder"] for row in reembed_job.run(job, load)}


def found(retriever: Retriever) -> dict[str, tuple[str, float]]:
    """Of each collection, asked in one call: the model in the trace, and the first passage's dense score."""
    asked = [Query(name, "word1 word2 word3", name) for name in COLLECTIONS]
    answers = {}
    for name, each in zip(COLLECTIONS, retriever.retrieve(asked), strict=True):
        assert isinstance(each, CandidateSet) and each.query.collection == name
        score = min(each.candidates, key=lambda one: one.passage.passage_id).score(DENSE)
        assert score is not None and score.score is not None
        answers[name] = (each.trace[-1].model, score.score)
    return answers


def test_collections_with_versions_of_their_own_are_served_side_by_side(
    settings: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(settings, load)
    ((_, base),) = {*found(retriever).values()}
    docs, medquad = promoted(registry, 2, DOCS), promoted(registry, 3, MEDQUAD)
    default = promoted(registry, 5)
    assert elsewhere(settings) == {
        "docs": f"{docs}@registry", "medquad": f"{medquad}@registry", "other": f"{default}@registry",
    }  # fmt: skip
    retriever.look()
    expected = {"docs": (docs, 4), "medquad": (medquad, 9), "other": (default, 25)}
    assert found(retriever) == {
        name: (f"{version}@registry", pytest.approx(factor * base)) for name, (version, factor) in expected.items()
    }
    assert {name: each for name, each in retriever.info().details.items() if "registry.version" in name} == {
        "registry.version": default, "registry.version.docs": docs, "registry.version.medquad": medquad,
    }  # fmt: skip
    assert found(load_retriever(settings, load)) == found(retriever), "after a restart too"


def test_a_promotion_for_one_collection_leaves_the_engines_of_the_others_in_place(
    settings: RetrieverSettings, registry: Registry
) -> None:
    promoted(registry, 2, DOCS)
    elsewhere(settings, "docs")
    retriever = load_retriever(settings, load)
    before, engines = found(retriever), dict(retriever._index.served)
    version = promoted(registry, 3, MEDQUAD)
    elsewhere(settings, "medquad")
    retriever.look()
    after = found(retriever)
    assert after["medquad"][0] == f"{version}@registry"
    assert {**after, "medquad": None} == {**before, "medquad": None}
    assert all(retriever._index.served[name] is engines[name] for name in ("docs", "other"))


def test_rolled_back_to_none_a_collection_switches_to_the_default_slots_version_and_then_to_the_configured_model(
    settings: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(settings, load)
    answers = [found(retriever)]
    promoted(registry, 2)
    elsewhere(settings)
    retriever.look()
    answers.append(found(retriever))
    promoted(registry, 3, MEDQUAD)
    elsewhere(settings)
    retriever.look()
    assert found(retriever)["medquad"] != answers[1]["medquad"]
    registry.rollback(MEDQUAD)
    retriever.look()
    assert found(retriever) == answers[1]
    registry.rollback(BI_ENCODER)
    retriever.look()
    assert found(retriever) == answers[0]


def test_the_other_collections_answer_while_one_collections_model_is_loaded(
    settings: RetrieverSettings, registry: Registry
) -> None:
    held = Held()
    retriever = load_retriever(settings, held)
    before, version = found(retriever), promoted(registry, 3, MEDQUAD)
    elsewhere(settings, "medquad")
    looking = threading.Thread(target=retriever.look)
    looking.start()
    assert held.loading.wait(LONG_S)
    assert [found(retriever) for _ in range(3)] == [before] * 3
    held.let_go.set()
    looking.join(LONG_S)
    assert found(retriever) == {**before, "medquad": (f"{version}@registry", pytest.approx(9 * before["medquad"][1]))}


def test_a_damaged_version_of_one_collections_slot_is_that_collections_problem(
    settings: RetrieverSettings, registry: Registry
) -> None:
    retriever = load_retriever(settings, load)
    before, version = found(retriever), promoted(registry, 3, MEDQUAD)
    elsewhere(settings, "medquad")
    (registry.model_dir(version) / "config.json").write_text("{}")
    retriever.look()
    details = retriever.info().details
    assert "qrelay models rollback bi_encoder:medquad" in details["collection.medquad.problem"]
    assert not [name for name in details if name.endswith("problem") and "medquad" not in name]
    assert found(retriever) == before


def test_the_configured_model_is_not_loaded_where_every_collection_has_a_version_of_its_own(
    settings: RetrieverSettings, registry: Registry
) -> None:
    for factor, name in enumerate(COLLECTIONS, 2):
        promoted(registry, factor, slot_of(BI_ENCODER, name))
    elsewhere(settings)
    loaded = []

    def noting(name: str, **options: Any) -> Embedder:
        loaded.append(name)
        return load(name, **options)

    assert len({model for model, _ in found(load_retriever(settings, noting)).values()}) == 3
    assert "hash" not in loaded


def test_reembed_leaves_collections_alone_that_the_configured_model_serves_unless_they_are_named(
    settings: RetrieverSettings, registry: Registry
) -> None:
    job = reembed_job.Job(settings.index_folder, (), "registry", settings.registry_folder)
    assert reembed_job.nothing_promoted(job)
    version = promoted(registry, 3, MEDQUAD)
    assert not reembed_job.nothing_promoted(job)
    assert elsewhere(settings) == {"medquad": f"{version}@registry"}
    with pytest.raises(InputError, match="no bi-encoder is promoted for docs"):
        elsewhere(settings, "docs")


def test_a_version_that_was_rolled_back_while_it_embedded_is_made_and_not_switched_to(
    settings: RetrieverSettings, registry: Registry
) -> None:
    version = promoted(registry, 3, MEDQUAD)
    job = reembed_job.Job(settings.index_folder, (), "registry", settings.registry_folder)
    still = reembed_job._still_serves(job, "medquad", version)
    assert still() and not reembed_job._still_serves(job, "docs", version)()
    registry.rollback(MEDQUAD)
    embedder = load_version(registry, version, load)
    made = reembed(settings.index_folder / "medquad", embedder, still)
    assert not made.switched
    assert found(load_retriever(settings, load))["medquad"][0] == "hash@1"
