"""Each index is served with the engine that it names; where that cannot be, the command that re-embeds is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.index.group import index
from qrelay.errors import CorpusIndexError, InputError, ModelError
from qrelay.index.build import BuildResult
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.reembed import reembed
from qrelay.index.reembed_job import Job, run
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder, HashEmbedder
from qrelay.models.engines import EncoderEngine, fingerprint
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.types import CandidateSet, Query
from tests import tiny
from tests.index.documents import WORDS, made_up, write_jsonl

Build = Callable[..., BuildResult]
INTEGERS = fingerprint("hash@1", "openvino")


class InEngine(HashEmbedder):
    """The double, as if it were a model that engines compute."""

    def __init__(self, engine: EncoderEngine) -> None:
        self.fingerprint = fingerprint("hash@1", engine)


def load(name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
    return InEngine(engine)


def torch_only(name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
    if engine == "openvino":
        raise ModelError("OpenVINO is not installed")
    return InEngine(engine)


def model_of(retriever: Retriever, collection: str = "tiny") -> str:
    (found,) = retriever.retrieve([Query("q", "word1 word2", collection)])
    assert isinstance(found, CandidateSet)
    return found.trace[-1].model


@pytest.mark.parametrize("configured", ["torch", "openvino"])
def test_the_index_says_which_engine_serves_it_whatever_is_configured(
    build: Build, settings: RetrieverSettings, configured: EncoderEngine
) -> None:
    build(made_up(5), "tiny", InEngine("openvino"))
    build(made_up(5), "other", InEngine("torch"))
    retriever = load_retriever(settings.model_copy(update={"embedder_engine": configured}), load)
    assert (model_of(retriever), model_of(retriever, "other")) == (INTEGERS, "hash@1")


def test_without_an_index_the_configured_engine_stands_by(settings: RetrieverSettings) -> None:
    settings.index_folder.mkdir()
    retriever = load_retriever(settings.model_copy(update={"embedder_engine": "openvino"}), load)
    assert retriever.fingerprint == INTEGERS


def test_an_engine_that_is_not_to_be_had_is_refused_and_the_command_that_is_named_helps(
    build: Build, settings: RetrieverSettings
) -> None:
    home = build(made_up(5), "tiny", InEngine("openvino")).folder.parent
    with pytest.raises(ModelError, match="OpenVINO is not installed") as refused:
        load_retriever(settings, torch_only)
    command = f"qrelay index reembed --model hash --engine torch --collection tiny --out {home.parent}"
    assert f"`{command}`" in str(refused.value)

    done = CliRunner().invoke(index, command.split()[2:], catch_exceptions=False)
    assert done.exit_code == 0
    assert model_of(load_retriever(settings, torch_only)) == "hash@1"


def test_an_index_of_a_quantisation_that_is_gone_is_refused_with_the_command(
    build: Build, settings: RetrieverSettings
) -> None:
    class Former(HashEmbedder):
        fingerprint = "hash@1+openvino-int8-static0"

    build(made_up(5), "tiny", Former())
    with pytest.raises(ModelError, match=r"static0 is of an engine .*`qrelay index reembed --model hash"):
        load_retriever(settings, load)


def test_an_index_of_another_model_is_refused_with_the_command_of_the_configured_engine(
    build: Build, settings: RetrieverSettings
) -> None:
    class Other(HashEmbedder):
        fingerprint = "other@1"

    build(made_up(5), "tiny", Other())
    with pytest.raises(CorpusIndexError, match="qrelay index reembed --model hash --engine openvino"):
        load_retriever(settings.model_copy(update={"embedder_engine": "openvino"}), load)


def test_going_back_to_an_engine_embeds_nothing_again(build: Build, settings: RetrieverSettings) -> None:
    home = build(made_up(5), "tiny", InEngine("torch")).folder.parent
    assert not reembed(home, InEngine("openvino")).already
    assert read_manifest(current_folder(home)).embedder == INTEGERS
    assert reembed(home, InEngine("torch")).already
    assert model_of(load_retriever(settings, torch_only)) == "hash@1"


def test_promoted_versions_run_in_torch(build: Build, settings: RetrieverSettings) -> None:
    build(made_up(5))
    with pytest.raises(InputError, match="run in torch"):
        run(Job(settings.index_folder, (), "registry", settings.registry_folder, engine="openvino"))


def test_build_and_reembed_take_the_engine_from_the_settings_or_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_MODELS_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("QRELAY_RETRIEVER__EMBEDDER_ENGINE", "openvino")
    model = f"path:{tiny.bi_encoder(tmp_path / 'tiny', WORDS, seed=1)}"
    source, out = write_jsonl(tmp_path / "corpus.jsonl", made_up(5)), str(tmp_path / "index")

    def embedder(*command: str) -> str:
        done = CliRunner().invoke(index, [*command, "--out", out], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return read_manifest(current_folder(tmp_path / "index" / "c")).embedder

    assert embedder("build", str(source), "--collection", "c", "--embedder", model).endswith("+openvino-int8-static1")
    assert "+" not in embedder("reembed", "--model", model, "--engine", "torch")
    assert embedder("reembed", "--model", model).endswith("+openvino-int8-static1")
