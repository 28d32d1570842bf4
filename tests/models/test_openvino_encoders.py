"""The 8-bit copies of encoders: made once, of the shipped passages, whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import ModelError
from qrelay.models.embedder import load_embedder
from qrelay.models.engines import engine_of, fingerprint
from qrelay.models.prepared import copies_dir
from qrelay.models.static_int8 import calibration_texts
from qrelay.models.tuning_encoders import measure_embedder
from qrelay.progress import Progress, listening
from tests import tiny

WORDS = sorted({word.lower() for text in calibration_texts() for word in text.split() if word.isalpha()})


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny bi-encoder, and a model home of its own."""
    monkeypatch.setenv("QRELAY_MODELS_DIR", str(tmp_path / "home"))
    return f"path:{tiny.bi_encoder(tmp_path / 'tiny', WORDS, seed=5)}"


def copies() -> list[Path]:
    return [path for path in copies_dir().iterdir() if path.is_dir()]


def test_a_copy_is_made_once_and_its_progress_is_told(model: str) -> None:
    told: list[Progress] = []
    with listening(told.append):
        first = load_embedder(model, engine="openvino").encode(["iron and light"], "document")
    (folder,) = copies()
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert folder.name.endswith("-openvino-int8-static1")
    assert max(each.done for each in told) == len(calibration_texts()) == told[-1].total

    again: list[Progress] = []
    with listening(again.append):
        second = load_embedder(model, engine="openvino").encode(["iron and light"], "document")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert not again
    np.testing.assert_array_equal(first, second)


def test_a_preparation_that_is_cut_short_leaves_nothing_and_the_next_one_succeeds(model: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(stop):
        load_embedder(model, engine="openvino")
    assert not copies()

    killed = copies_dir() / f"{load_embedder(model).fingerprint.partition('@')[2]}-openvino-int8-static1.unfinished"
    killed.mkdir()
    (killed / "body.xml").write_text("half")
    load_embedder(model, engine="openvino")
    assert [path.name for path in copies()] == [killed.name.removesuffix(".unfinished")]


def test_without_openvino_the_error_names_what_to_install(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'qrelay\[openvino\]'"):
        load_embedder(model, engine="openvino")


def test_every_engine_is_measured_and_gives_nearly_the_same_vectors(model: str) -> None:
    rates = measure_embedder(model, ("torch", "openvino"), threads=1)
    assert set(rates) == {"torch", "openvino"} and min(rates.values()) > 0
    texts = calibration_texts()
    ours, theirs = (load_embedder(model, engine=engine).encode(texts, "document") for engine in ("torch", "openvino"))
    assert (ours * theirs).sum(1).mean() >= 0.99


def test_fingerprints_name_every_engine_but_torch() -> None:
    assert fingerprint("m@1", "torch") == "m@1"
    assert engine_of("m@1") == engine_of("bi-encoder-3@registry") == "torch"
    assert engine_of(fingerprint("m@1", "openvino")) == "openvino"
    with pytest.raises(ModelError, match="static0"):
        engine_of("m@1+openvino-int8-static0")
