"""Prompts and maximum length: the model's own wherever a text is embedded, and part of a vector's identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qrelay.errors import CorpusIndexError
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import SentenceTransformerEmbedder, load_embedder
from qrelay.models.encoding import encoding, own_length
from qrelay.models.engines import ENGINES, engine_of, fingerprint
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry, ServedVersion
from qrelay.models.served import load_version, registered
from qrelay.models.static_int8 import calibration_texts
from qrelay.services.retriever.retriever import load_retriever
from tests import tiny

WORDS = sorted({word.lower() for text in calibration_texts() for word in text.split() if word.isalpha()})
PROMPTS = {"query": "what is the ", "document": "this is a "}
TEXTS = [*calibration_texts()[:5], " ".join(calibration_texts())]


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with prompts that reads 300 tokens."""
    return tiny.bi_encoder(tmp_path_factory.mktemp("prompted") / "model", WORDS, 1, 300, PROMPTS)


def folder(path: Path, **files: Any) -> Path:
    """A model's folder with these JSON files."""
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_text_is_embedded_as_the_library_embeds_it_with_the_models_own_prompts_and_length(
    prompted: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("QRELAY_MODELS_DIR", str(tmp_path))
    library = SentenceTransformer(str(prompted), device="cpu")
    ours = load_embedder(f"path:{prompted}", engine=engine)  # type: ignore[arg-type]
    bare = np.concatenate([library.encode([text], prompt="", normalize_embeddings=True) for text in TEXTS])
    least = 0.99999 if engine == "torch" else 0.99
    for kind, call in (("query", library.encode_query), ("document", library.encode_document)):
        theirs = np.concatenate([call([text], normalize_embeddings=True) for text in TEXTS])
        found = ours.encode(TEXTS, kind)  # type: ignore[arg-type]
        assert (found * theirs).sum(1).mean() > least > (theirs * bare).sum(1).mean()
    assert own_length(prompted) == library.max_seq_length == 300


def test_an_index_that_knows_nothing_of_the_models_prompts_is_refused_with_the_command_that_embeds_it_again(
    prompted: Path, tmp_path: Path
) -> None:
    model = load_embedder(f"path:{prompted}")
    assert isinstance(model, SentenceTransformerEmbedder) and "+encoding-" in model.fingerprint
    former = SentenceTransformerEmbedder(model.model, model.name, model.fingerprint.partition("+")[0])
    (tmp_path / "c.jsonl").write_text(json.dumps({"_id": "d", "text": "iron and light"}) + "\n")
    request = BuildRequest(str(tmp_path / "c.jsonl"), "tiny", tmp_path / "index")
    build_index(request, former, print)
    settings = RetrieverSettings(index_dir=tmp_path / "index", embedder=f"path:{prompted}", registry_poll_s=0)
    command = rf"qrelay index reembed --model path:\S+ --engine torch --collection tiny --out {tmp_path / 'index'}`"
    with pytest.raises(CorpusIndexError, match=command):
        load_retriever(settings)
    build_index(request, model, print)
    assert load_retriever(settings).fingerprint == model.fingerprint


def test_a_version_of_the_registry_has_its_encoding_in_its_fingerprint(prompted: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version = registry.publish(prompted, slot=BI_ENCODER, base="a@1")
    served = ServedVersion(version, BI_ENCODER, registry.model_dir(version))
    assert load_version(registry, version).fingerprint == served.fingerprint
    assert served.fingerprint == f"{version}{encoding(prompted)}@registry"
    assert registered(served.fingerprint) == registered(f"{version}@registry") == version
    assert ServedVersion(version, CROSS_ENCODER, served.path).fingerprint == f"{version}@registry"
    assert registered("m@1") == registered(f"m@1{encoding(prompted)}") == ""


def test_a_model_without_prompts_that_reads_at_most_256_tokens_keeps_the_identity_of_its_indexes(
    tmp_path: Path,
) -> None:
    named = {"tokenizer_config": {"model_max_length": 512}, "config": {"max_position_embeddings": 512}}
    unused = {"prompts": {"query": "", "document": "", "classification": "classify: "}}
    files = {"sentence_bert_config": {"max_seq_length": 256}, "config_sentence_transformers": unused}
    assert encoding(folder(tmp_path / "minilm", **files, **named)) == encoding(tmp_path / "absent") == ""


def test_other_prompts_and_lengths_are_other_identities(tmp_path: Path) -> None:
    prompts: list[dict[str, Any]] = [
        {"prompts": {"query": "query: "}},
        {"prompts": {"query": "search: "}},
        {"prompts": {"passage": "query: "}},
        {"prompts": {"always": "query: "}, "default_prompt_name": "always"},
    ]
    files = [{"config_sentence_transformers": each} for each in prompts]
    files += [{"config": {"max_position_embeddings": tokens}} for tokens in (512, 8192)]
    found = [encoding(folder(tmp_path / str(n), **each)) for n, each in enumerate(files)]
    assert len(set(found)) == 6 and all(each.startswith("+encoding-") for each in found)
    assert [engine_of(fingerprint(f"m@1{found[0]}", engine)) for engine in ENGINES] == list(ENGINES)


def test_the_length_is_the_one_that_the_library_takes(tmp_path: Path) -> None:
    unlimited = {"model_max_length": 1e30}
    assert own_length(folder(tmp_path / "none", tokenizer_config=unlimited)) == 256
    assert own_length(folder(tmp_path / "unlimited", tokenizer_config=unlimited, config={})) == 256
    capped = folder(tmp_path / "capped", tokenizer_config={"model_max_length": 512}, config={})
    assert own_length(capped) == 512
    parts = folder(tmp_path / "parts", modules=[{"path": "0_Transformer"}])
    folder(parts / "0_Transformer", sentence_bert_config={"max_seq_length": 128})
    assert own_length(parts) == 128
