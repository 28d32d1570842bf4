"""`qrelay models push`: the card, and as a process of its own against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from qrelay.models.registry import CROSS_ENCODER, DataSource, Registry
from qrelay.models.registry.card import card
from tests.labels.hub import TOKEN, Hub, running_hub
from tests.models.registry.models import a_model, passed, published, row

REPO = "team/retriever"
EXPORT = {
    "format": "triples", "collection": "docs", "queries": 40, "grades": {"0": 90, "3": 30}, "missing": {"timeout": 2},
    "changes": {"from": 0, "to": 12}, "qualification": {"verdict": "qualified"},
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def version(registry: Registry) -> str:
    model = a_model(registry.folder.parent / "trained-a", "a")
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    (model / "README.md").write_text("the trainer's own")
    made = published(registry, "a", data=[DataSource("train", "5" * 64, 40, EXPORT)], collections=("docs",))
    return passed(registry, made, why="it rose", rows=[row("nDCG@10", "howto", 0.4, 0.5)])


def push(hub: Hub, home: Path, *arguments: str, token: str = TOKEN) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one push."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "QRELAY_"))}
    extra = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    extra |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "qrelay.cli.main", "models", "push", "--repo", REPO, "--data-dir", str(home)]
    done = subprocess.run(
        [*command, *arguments],
        env={**kept, **extra, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_push_sends_weights_card_and_manifest_to_a_private_model(
    hub: Hub, registry: Registry, tmp_path: Path, version: str
) -> None:
    hub.fail("/commit/", 500)
    code, _, err = push(hub, tmp_path, version)
    assert (code, "run it again" in err) == (1, True)
    sent = hub.asked("PUT", "/lfs/")
    code, out, err = push(hub, tmp_path, version, "--json")
    assert code == 0, err
    repository = hub.repositories[REPO]
    assert (repository.private, repository.kind) == (True, "model")
    assert (sent, hub.asked("PUT", "/lfs/")) == (1, 1)  # the weights are not sent again
    assert set(repository.files) == {*registry.manifest(version).files, "README.md", "qrelay-manifest.json"}
    assert repository.files["model.safetensors"] == b"weights" * 1000
    assert json.loads(repository.files["qrelay-manifest.json"]) == registry.manifest(version).as_json()
    assert json.loads(out)["version"] == version
    text = repository.files["README.md"].decode()
    assert "the trainer's own" not in text and f"Version `{version}`" in text


def test_a_dry_run_lists_what_would_leave_and_contacts_nobody(hub: Hub, tmp_path: Path, version: str) -> None:
    code, out, err = push(hub, tmp_path, version, "--dry-run", token="")
    assert code == 0, err
    assert hub.requests == []
    for words in (f"would be pushed to the private model {REPO}", "model.safetensors", "README.md"):
        assert words in out


def test_a_public_model_gets_nothing_unless_that_is_asked_for(hub: Hub, tmp_path: Path, version: str) -> None:
    assert push(hub, tmp_path, version, "--public")[0] == 0
    before = dict(hub.repositories[REPO].files)
    code, _, err = push(hub, tmp_path, version)
    assert (code, "push with --public" in err) == (1, True)
    assert (hub.repositories[REPO].files, hub.repositories[REPO].private) == (before, False)


def test_the_card_says_what_it_is_made_of_who_judged_and_what_was_measured(registry: Registry, version: str) -> None:
    known = registry.standing().versions[version]
    text = card(
        registry.manifest(version),
        repo=REPO,
        state="candidate",
        gate=known.gate,
        tainted_by=[],
        datasets=["team/how-to"],
    )
    data = ModelCard(text).data
    assert (data.base_model, data.datasets, data.library_name) == ("base", ["team/how-to"], "sentence-transformers")
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_name, result.metric_value) == ("howto", "nDCG@10", 0.5)
    for words in (
        f'SentenceTransformer("{REPO}")', "40 queries of `docs`; changes 0 to 12", "30 of grade 3", "2 timeout",
        "`qwen@1` | graded | 7", "**qualified**", "| pass | better | howto | nDCG@10 | 40 | 0.4000 | 0.5000 |",
        "measurements by language models",
    ):  # fmt: skip
        assert words in text


def test_the_card_of_a_tainted_ungated_reranker_hides_neither(registry: Registry) -> None:
    made = published(registry, "x", slot=CROSS_ENCODER, judge="j9")
    text = card(registry.manifest(made), repo=REPO, state="candidate", gate=None, tainted_by=["j9"], datasets=[])
    data = ModelCard(text).data
    assert (data.pipeline_tag, data.eval_results) == ("text-ranking", None)
    for words in (f'CrossEncoder("{REPO}")', "**retracted**", "**Tainted**", "not measured by the gate"):
        assert words in text
