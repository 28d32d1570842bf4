"""Approximate indexes: which kind, resumed after a kill, refused below the wanted recall, without removed rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import SetupError
from qrelay.index.ann import INDEX, AnnRequest, AnnSearch, build_ann, bytes_a_vector, faiss_name, tuned
from qrelay.index.kinds import FORMS, Form, Kind
from qrelay.index.stored import StoredVectors, stored

ROOT = Path(__file__).parents[2]
APPROXIMATE: list[Kind] = ["hnsw", "ivf-sq", "ivf-pq"]
NONE = np.empty(0, np.int64)


def vectors(count: int, dim: int = 32, seed: int = 1) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(
    ("count", "gigabytes", "kind"),
    [(65_536, 1, "exact"), (65_537, 1, "hnsw"), (10**6, 0.6, "ivf-sq"), (10**7, 1, "ivf-pq"), (10**9, 1, "ivf-pq")],
)
def test_the_kind_follows_from_size_and_memory(count: int, gigabytes: float, kind: Kind) -> None:
    assert AnnRequest(memory=int(gigabytes * 1e9)).choose(count, 384) == kind


def test_a_kind_that_is_asked_for_is_taken_whatever_the_size() -> None:
    assert AnnRequest("ivf-pq").choose(10, 384) == "ivf-pq"
    assert AnnRequest("exact").choose(10**8, 384) == "exact"


def test_a_request_is_told_by_a_versions_parameters_and_the_default_by_none() -> None:
    assert AnnRequest().parameters == {}
    request = AnnRequest("hnsw", 0.9, 48)
    assert AnnRequest.of({"vectors": "int8", **request.parameters}) == request


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("dim", [7, 100, 384])
def test_faiss_knows_every_kind_at_every_dimension(kind: Kind, dim: int) -> None:
    import faiss

    assert faiss.index_factory(dim, faiss_name(kind, 50_000, dim, 32)).d == dim
    assert bytes_a_vector(kind, dim, 32) > 0


@pytest.mark.parametrize("form", FORMS)
def test_stored_vectors_are_read_as_they_were_within_their_form(form: Form) -> None:
    given = vectors(300)
    read = StoredVectors(stored(given, form))
    assert (read.form, read.dim, len(read)) == (form, 32, 300)
    found = read.take(np.arange(300)).astype(np.float64)
    cosines = np.sum(found * given, axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(given, axis=1)
    assert cosines.min() >= {"float32": 1 - 1e-7, "float16": 1 - 1e-6, "int8": 0.9998}[form]
    assert np.allclose(read.similarities(given[:5]), given[:5] @ read.take(np.arange(300)).T, atol=1e-5)


def test_vectors_of_zeros_stay_zeros_in_every_form() -> None:
    for form in FORMS:
        assert not StoredVectors(stored(np.zeros((2, 8), np.float32), form)).take(np.arange(2)).any()


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_removed_rows_are_never_proposed(tmp_path: Path, kind: Kind) -> None:
    held = StoredVectors(vectors(600))
    build_ann(held, tmp_path, tmp_path, kind, 16)
    dead = np.arange(0, 600, 2)
    near = AnnSearch(tmp_path, kind, dead).near(held.take(np.arange(20)), 30, 64)
    assert all(len(rows) >= 30 and not np.isin(rows, dead).any() for rows in near)


def test_an_index_that_does_not_reach_the_wanted_recall_is_refused_with_what_to_raise(tmp_path: Path) -> None:
    held = StoredVectors(vectors(3000))
    build_ann(held, tmp_path, tmp_path, "ivf-pq", 16)
    search = AnnSearch(tmp_path, "ivf-pq", np.arange(100, 3000))  # it cannot find what it must leave out
    with pytest.raises(SetupError, match=r"finds .*% of the 100 nearest.*wanted are 98.0%: .*ann_memory_gb"):
        tuned(search, "ivf-pq", held, vectors(5, seed=2), 0.98, 0.0)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_least_effort_that_reaches_the_recall_is_kept(tmp_path: Path, kind: Kind) -> None:
    held = StoredVectors(vectors(3000))
    build_ann(held, tmp_path, tmp_path, kind, 16)
    search, queries = AnnSearch(tmp_path, kind, NONE), vectors(20, seed=2)
    little, much = (tuned(search, kind, held, queries, recall, 0.0) for recall in (0.5, 0.95))
    assert little.recall >= 0.5 and much.recall >= 0.95 and little.effort <= much.effort


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_killed_build_goes_on_from_its_last_checkpoint(tmp_path: Path, kind: Kind) -> None:
    given = vectors(2500)
    np.save(tmp_path / "vectors.npy", given)
    code = f"""
import os, signal
from pathlib import Path
import qrelay.index.ann as ann
from qrelay.index.stored import StoredVectors
ann.CHECKPOINT_ROWS = ann.STEP_ROWS = 500
saves, save = [], ann._save
def dying(index, path):
    save(index, path)
    saves.append(index.ntotal)
    if len(saves) == 3: os.kill(os.getpid(), signal.SIGKILL)
ann._save = dying
folder = Path({str(tmp_path)!r})
ann.build_ann(StoredVectors.open(folder), folder, folder, {kind!r}, 16)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / INDEX).exists()
    import faiss

    assert faiss.read_index(str(tmp_path / "ann.partial")).ntotal == 1500
    held = StoredVectors.open(tmp_path)
    build_ann(held, tmp_path, tmp_path, kind, 16)
    found = AnnSearch(tmp_path, kind, NONE).near(given[[0, 1499, 1500, 2499]], 5, 64)
    assert [row in rows for row, rows in zip((0, 1499, 1500, 2499), found, strict=True)] == [True] * 4
    assert faiss.read_index(str(tmp_path / INDEX)).ntotal == 2500
