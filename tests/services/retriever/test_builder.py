"""The process that re-embeds beside the service: real tiny models, killed, shared between replicas, called off."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qrelay.index.build import BuildResult
from qrelay.index.manifest import checked_manifest, current_folder
from qrelay.index.reembed import under_way
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS
from qrelay.index.vectors import SHARD_PASSAGES
from qrelay.models.embedder import load_embedder
from qrelay.models.registry import BI_ENCODER, Registry, slot_of
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.types import CandidateSet, Query
from tests import tiny
from tests.index.documents import WORDS, made_up

SHARDS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [tiny.bi_encoder(folder / f"b{seed}", WORDS, seed) for seed in (0, 1)]


@pytest.fixture
def settings(build: Callable[..., BuildResult], tmp_path: Path, models: list[Path]) -> RetrieverSettings:
    """Over a collection `tiny` whose index the first model built."""
    base = f"path:{models[0]}"
    build(made_up(SHARDS * SHARD_PASSAGES, words=6), by=load_embedder(base))
    return RetrieverSettings(
        index_dir=tmp_path / "index", embedder=base, registry=tmp_path / "registry", registry_poll_s=0.01,
        reload_every_s=0,
    )  # fmt: skip


@pytest.fixture
def replicas(settings: RetrieverSettings) -> Iterator[Callable[[], Retriever]]:
    """Starts a replica; all are closed at the end."""
    started: list[Retriever] = []

    def start() -> Retriever:
        started.append(load_retriever(settings))
        return started[-1]

    yield start
    for each in started:
        each.close()


def promote(settings: RetrieverSettings, model: Path, slot: str = BI_ENCODER) -> str:
    registry = Registry(settings.registry_folder)
    version = registry.publish(model, slot=slot, base="tiny@1")
    registry.record_gate(version, {"passed": True, "against": registry.standing().serving(slot)})
    registry.promote(version)
    return version


def model_of(retriever: Retriever, collection: str = "tiny") -> str:
    (found,) = retriever.retrieve([Query("q", "word1 word2", collection)])
    assert isinstance(found, CandidateSet)
    return found.trace[-1].model


def until(condition: Callable[[], bool], *looking: Retriever) -> None:
    while not condition():
        for each in looking:
            each.look()
        time.sleep(0.01)


def builder_pid(retriever: Retriever) -> int | None:
    return retriever._follower._builder.pid if retriever._follower else None


def test_killed_while_embedding_the_former_version_serves_at_restart_and_the_next_run_goes_on(
    settings: RetrieverSettings, models: list[Path], replicas: Callable[[], Retriever]
) -> None:
    home = settings.index_folder / "tiny"
    first = replicas()
    before, version = model_of(first), promote(settings, models[1])
    wanted = f"{version}@registry"
    first.look()
    pid = builder_pid(first)
    assert pid is not None
    until(lambda: (under_way(home, wanted) or (0, 0))[0] > 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    done, total = under_way(home, wanted) or (0, 0)
    assert 0 < done < total == SHARDS * SHARD_PASSAGES, "it was over before the kill: raise SHARDS"
    second = replicas()
    assert model_of(second) == before
    second.look()
    assert (
        second.info().details["reembedding.tiny"].startswith(f"{done / total:.0%} ({done:,} of {total:,} passages)")
    )
    seen = [done]

    def switched() -> bool:
        seen.append((under_way(home, wanted) or (seen[-1], 0))[0])
        return model_of(second) == wanted

    until(switched, second)
    assert all(each >= done for each in seen if each), "what was embedded before the kill was not embedded again"
    folder = current_folder(home)
    checked_manifest(folder, "full")
    store, embedder = PassageStore(folder), load_embedder(f"path:{models[1]}")
    rows = range(0, len(store), 50)
    np.testing.assert_allclose(
        np.load(folder / VECTORS)[list(rows)], embedder.encode(store.passage_texts(rows), "document"), atol=1e-5
    )


def test_a_process_that_has_embedded_nothing_yet_is_seen_to_compute(
    settings: RetrieverSettings, models: list[Path], replicas: Callable[[], Retriever]
) -> None:
    one = replicas()
    wanted = f"{promote(settings, models[1])}@registry"
    one.look()
    seen: set[str] = set()

    def embedding() -> bool:
        seen.add(one.info().details.get("reembedding.tiny", ""))
        return under_way(settings.index_folder / "tiny", wanted) is not None

    until(embedding)
    assert len([each for each in seen if each.startswith("0% for")]) > 1, seen


def test_of_two_replicas_that_share_a_folder_one_re_embeds_and_both_switch(
    settings: RetrieverSettings, models: list[Path], replicas: Callable[[], Retriever]
) -> None:
    one, two = replicas(), replicas()
    version = promote(settings, models[1])
    wanted = f"{version}@registry"
    one.look()
    until(lambda: under_way(settings.index_folder / "tiny", wanted) is not None)
    two.look()
    assert (builder_pid(one) is None, builder_pid(two) is None) == (False, True)
    assert "%" in two.info().details["reembedding.tiny"], "both see how far it is"
    until(lambda: model_of(one) == model_of(two) == wanted, one, two)
    assert "registry.problem" not in one.info().details | two.info().details


def test_a_rollback_while_it_embeds_ends_it_and_nothing_is_switched(
    settings: RetrieverSettings, models: list[Path], replicas: Callable[[], Retriever]
) -> None:
    one = replicas()
    before = model_of(one)
    promote(settings, models[1])
    one.look()
    assert builder_pid(one) is not None
    Registry(settings.registry_folder).rollback(BI_ENCODER)
    one.look()
    assert builder_pid(one) is None and model_of(one) == before
    assert not [name for name in one.info().details if name.startswith("reembedding")]


def test_a_model_that_cannot_embed_leaves_the_former_in_service_and_is_reported(
    settings: RetrieverSettings, tmp_path: Path, replicas: Callable[[], Retriever]
) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "config.json").write_text('{"model_type": "no such model"}')
    one = replicas()
    before, version = model_of(one), promote(settings, tmp_path / "junk")
    until(lambda: "registry.problem" in one.info().details, one)
    assert version in one.info().details["registry.problem"] and model_of(one) == before


def test_collections_with_slots_of_their_own_are_re_embedded_and_switched_one_after_the_other(
    settings: RetrieverSettings, build: Callable[..., BuildResult], models: list[Path],
    replicas: Callable[[], Retriever], tmp_path: Path,
) -> None:  # fmt: skip
    build(made_up(20), collection="medquad", by=load_embedder(f"path:{models[0]}"))
    build(made_up(20), collection="other", by=load_embedder(f"path:{models[0]}"))
    one = replicas()
    before = model_of(one, "other")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "config.json").write_text('{"model_type": "no such model"}')
    promote(settings, tmp_path / "junk", slot_of(BI_ENCODER, "tiny"))
    until(lambda: "registry.problem" in one.info().details, one)
    version = promote(settings, models[1], slot_of(BI_ENCODER, "medquad"))
    until(lambda: model_of(one, "medquad") == f"{version}@registry", one)
    assert "registry.problem" in one.info().details, "one that cannot be embedded holds up no other"
    assert model_of(one) == model_of(one, "other") == before
