"""Re-embedding: same passages, other vectors; resumed, found again, overtaken by a build, not wanted any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import CorpusIndexError
from qrelay.index.build import BuildResult
from qrelay.index.manifest import checked_manifest, current_version, read_manifest
from qrelay.index.reembed import only_one, reembed, under_way
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS
from qrelay.index.vectors import SHARD_PASSAGES
from qrelay.models.embedder import TextKind, Vectors
from tests.index.documents import made_up
from tests.services.retriever.versions import Times

Build = Callable[..., BuildResult]


def vectors(folder: Path) -> np.ndarray:
    found: np.ndarray = np.load(folder / VECTORS)
    return found


def test_the_passages_stay_and_the_vectors_are_the_other_models(build: Build) -> None:
    before, model = build(made_up(30)), Times(3)
    made = reembed(before.folder.parent, model)
    texts = (store := PassageStore(made.folder)).passage_texts(range(len(store)))
    np.testing.assert_array_equal(vectors(made.folder), model.encode(texts, "document"))
    facts = checked_manifest(made.folder, "full")
    assert facts.embedder == "times3@1" and facts.version != before.manifest.version
    assert current_version(before.folder.parent) == made.folder.name and made.switched
    hashes = [{e.path: e.sha256 for e in m.files if e.path != VECTORS} for m in (facts, before.manifest)]
    assert hashes[0] == hashes[1]
    assert checked_manifest(before.folder, "full") == before.manifest, "the former version is whole"


def test_going_back_finds_the_former_version_and_embeds_nothing(build: Build) -> None:
    home, first, second = build(made_up(30)).folder.parent, Times(2), Times(3)
    versions = [reembed(home, model).folder.name for model in (first, second)]
    embedded = first.texts, second.texts
    again = reembed(home, Times(2))
    assert again.already and again.switched and again.folder.name == versions[0] == current_version(home)
    assert embedded == (first.texts, second.texts)


def test_a_version_of_the_wanted_model_that_is_damaged_is_made_again(build: Build) -> None:
    home = build(made_up(30)).folder.parent
    broken = reembed(home, Times(2)).folder
    reembed(home, Times(3))
    (broken / VECTORS).write_bytes(b"")
    again = reembed(home, Times(2))
    assert not again.already and again.folder == broken
    checked_manifest(broken, "full")


def test_a_run_that_died_goes_on_where_it_was(build: Build) -> None:
    class Dying(Times):
        def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
            if self.texts >= 2 * SHARD_PASSAGES:
                raise KeyboardInterrupt
            return super().encode(texts, kind)

    before = build(made_up(3 * SHARD_PASSAGES, words=8))
    home = before.folder.parent
    with pytest.raises(KeyboardInterrupt):
        reembed(home, Dying(2))
    assert current_version(home) == before.folder.name
    assert under_way(home, "times2@1") == (2 * SHARD_PASSAGES, 3 * SHARD_PASSAGES)
    model = Times(2)
    made = reembed(home, model)
    assert (model.texts, made.resumed) == (SHARD_PASSAGES, 2 * SHARD_PASSAGES)
    assert under_way(home, "times2@1") is None
    np.testing.assert_array_equal(vectors(made.folder), 2 * vectors(before.folder))


def test_a_corpus_that_was_built_meanwhile_is_embedded_and_only_its_news(build: Build) -> None:
    rows = made_up(40, words=8)
    home = build(rows).folder.parent

    class Overtaken(Times):
        def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
            if not self.texts:
                build([*rows, {"_id": "new", "text": "one more"}])
            return super().encode(texts, kind)

    model = Overtaken(2)
    made = reembed(home, model)
    assert made.manifest.passages == 41 and made.manifest.reused == 40 and model.texts == 41
    assert made.switched and current_version(home) == made.folder.name


def test_what_is_not_wanted_any_more_is_kept_and_not_switched_to(build: Build) -> None:
    before = build(made_up(30))
    made = reembed(before.folder.parent, Times(2), still_wanted=lambda: False)
    assert not made.switched and current_version(before.folder.parent) == before.folder.name
    assert reembed(before.folder.parent, Times(2)).already


def test_only_one_process_re_embeds_a_collection(build: Build) -> None:
    home = build(made_up(3)).folder.parent
    with only_one(home), pytest.raises(CorpusIndexError, match="another process re-embeds"):
        reembed(home, Times(2))
    assert reembed(home, Times(2)).switched


def test_going_back_to_the_model_that_cut_the_passages_has_that_builds_own_name(build: Build) -> None:
    """Or a build of the same corpus and model would be made twice."""
    before = build(made_up(5), by=Times(1))
    home = before.folder.parent
    assert read_manifest(reembed(home, Times(2)).folder).parameters["window_tokenizer"] == "times1@1"
    (before.folder / VECTORS).unlink()
    assert reembed(home, Times(1)).folder == before.folder
