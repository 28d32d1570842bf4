"""The catalogue's files, and finding a model with the right bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, ModelError
from qrelay.models.catalogue import load_catalogue, parse_catalogue, resolve
from qrelay.models.home import MARKER, check_model, models_dir
from qrelay.models.records import ModelEntry
from tests.models.conftest import entry_of, sha256

Install = Callable[[ModelEntry, dict[str, bytes]], Path]
FILES = {"tiny-q4_0.gguf": b"weights"}
FOLDER = {"config.json": b"{}", "sub/weights.dat": b"weights"}


def test_packaged_catalogue_has_an_embedder_and_judges_and_each_can_come_from_hub_or_wheels() -> None:
    catalogue = load_catalogue({})

    assert {entry.task for entry in catalogue.values()} == {"embedding", "judge"}
    for entry in catalogue.values():
        assert [source.hub is not None for source in entry.sources] == [True, False], entry.name
    assert catalogue["qwen2.5-coder-1.5b-instruct"].size_bytes == 1_117_320_768


def test_every_problem_of_a_catalogue_is_reported_at_once() -> None:
    text = f"""
models:
  - {{name: "bad name", task: judge, quantisation: q4, licence: MIT, files: []}}
  - name: several
    task: translation
    quantisation: q4
    licence: MIT
    surprise: 1
    files: [{{path: ../outside, size_bytes: -1, sha256: short}}]
  - name: hash
    task: judge
    quantisation: q4
    licence: MIT
    files: [{{path: a.gguf, size_bytes: 1, sha256: {"a" * 64}}}, {{path: b.gguf, size_bytes: 1, sha256: {"b" * 64}}}]
    sources:
      - {{}}
      - hub: {{repo: a/b, revision: main, files: {{c.gguf: d.gguf}}}}
      - wheels: [{{package: p, version: "1", size_bytes: 1, member: p/part, sha256: {"c" * 64}}}]
      - {{zip: p/, wheels: [{{package: p, version: "1", size_bytes: 1, member: p/, sha256: {"c" * 64}}}]}}
  - name: hash
"""

    with pytest.raises(ConfigError) as caught:
        parse_catalogue(text, "mine.yaml")

    message = str(caught.value)
    for expected in (
        "mine.yaml",
        "model 'bad name': name",
        "model 'bad name': files",
        "model 'several': task",
        "model 'several': surprise",
        "files.0.path: Value error, must be a relative path",
        "files.0.size_bytes",
        "files.0.sha256",
        "this name is reserved",
        "sources.0: give exactly one of `hub` and `wheels`",
        "sources.1.hub.files: 'c.gguf' is not among the model's files",
        "sources.2.wheels: parts make up a single file",
        "sources.3.zip: its parts must be members",
        "model 'hash': the name is used 2 times",
    ):
        assert expected in message


@pytest.mark.parametrize("text", ["- a list", "models: 3", "models: [", ""])
def test_a_file_that_is_no_catalogue_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        parse_catalogue(text, "mine.yaml")


def test_a_user_catalogue_adds_models_and_replaces_those_of_the_same_name(tmp_path: Path) -> None:
    entry = (
        "{{name: {}, task: judge, quantisation: q8_0, licence: MIT, files: [{{path: a, size_bytes: 1, sha256: {}}}]}}"
    )
    mine = tmp_path / "mine.yaml"
    listed = ", ".join(entry.format(name, "d" * 64) for name in ("mine", "smollm2-135m-instruct"))
    mine.write_text(f"models: [{listed}]")

    catalogue = load_catalogue({"QRELAY_CATALOGUE": str(mine)})

    assert catalogue["mine"].licence == "MIT"
    assert catalogue["smollm2-135m-instruct"].quantisation == "q8_0"
    assert "all-MiniLM-L6-v2" in catalogue


def test_an_unreadable_user_catalogue_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="QRELAY_CATALOGUE"):
        load_catalogue({"QRELAY_CATALOGUE": str(tmp_path / "absent.yaml")})


def test_model_home_follows_the_environment() -> None:
    assert models_dir({"QRELAY_MODELS_DIR": "/m"}) == Path("/m")
    assert models_dir({"XDG_CACHE_HOME": "/c"}) == Path("/c/qrelay/models")
    assert models_dir({}) == Path.home() / ".cache/qrelay/models"


def test_resolve_gives_the_file_of_a_single_file_model_and_the_folder_of_others(home: Path, install: Install) -> None:
    single, several = entry_of("tiny", FILES), entry_of("folder", FOLDER)
    install(single, FILES)
    install(several, FOLDER)
    catalogue = {entry.name: entry for entry in (single, several)}

    file = resolve("tiny", catalogue=catalogue, home=home)
    folder = resolve("folder", catalogue=catalogue, home=home)

    assert file.path == home / "tiny" / "tiny-q4_0.gguf"
    assert file.revision == sha256(b"weights")[:12]
    assert folder.path == home / "folder"
    assert folder.revision == several.revision


def test_an_absent_model_says_which_command_to_run(home: Path) -> None:
    with pytest.raises(ModelError, match="qrelay models pull tiny"):
        resolve("tiny", catalogue={"tiny": entry_of("tiny", FILES)}, home=home)


def test_an_unknown_model_lists_those_that_exist(home: Path) -> None:
    with pytest.raises(ModelError, match=r"no model is named 'huge'.*tiny.*path:"):
        resolve("huge", catalogue={"tiny": entry_of("tiny", FILES)}, home=home)


def test_a_wrong_hash_names_the_file_both_hashes_and_the_mend(home: Path, install: Install) -> None:
    entry = entry_of("tiny", FILES)
    install(entry, {"tiny-q4_0.gguf": b"other bytes"})

    with pytest.raises(ModelError) as caught:
        resolve("tiny", catalogue={"tiny": entry}, home=home)

    message = str(caught.value)
    for expected in ("tiny-q4_0.gguf", sha256(b"weights"), sha256(b"other bytes"), "qrelay models pull tiny"):
        assert expected in message


def test_a_verified_file_is_not_hashed_again_until_its_size_or_time_changes(home: Path, install: Install) -> None:
    entry = entry_of("tiny", FILES)
    folder = install(entry, FILES)
    assert check_model(entry, folder) == []
    path = folder / "tiny-q4_0.gguf"
    before = path.stat()

    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert check_model(entry, folder) == []  # the marker is trusted: same size, same time
    assert check_model(entry, folder, full=True) != []  # `qrelay models verify` is not fooled

    path.write_bytes(b"weights")
    assert check_model(entry, folder) == []
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert [problem.found for problem in check_model(entry, folder)] == [sha256(b"WEIGHTS")]


def test_a_damaged_marker_only_costs_a_hash(home: Path, install: Install) -> None:
    entry = entry_of("tiny", FILES)
    folder = install(entry, FILES)
    (folder / MARKER).write_text("{not json")

    assert check_model(entry, folder) == []


def test_a_model_by_path_is_named_after_it_and_its_revision_follows_its_bytes(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "my-judge.Q5_K_M.gguf"
    path.write_bytes(b"one")
    first = resolve(f"path:{path}", home=home)
    path.write_bytes(b"three")
    second = resolve(f"path:{path}", home=home)

    assert (first.path, first.name, first.quantisation) == (path, "my-judge.Q5_K_M", "q5_k_m")
    assert first.revision == sha256(b"one")[:12] != second.revision
    assert resolve(f"path:{tmp_path}", home=home).path == tmp_path


def test_a_path_that_does_not_exist_or_is_empty_is_a_model_error(tmp_path: Path, home: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve(f"path:{tmp_path}/absent", home=home)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="without files"):
        resolve(f"path:{tmp_path}/empty", home=home)
