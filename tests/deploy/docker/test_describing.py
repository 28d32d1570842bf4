"""`make images`: what it says of each image, and what it has an engine build."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.images import IMAGES, images, origin, public
from scripts.recipes import ROOT

TOLD = {"VERSION": "1.2.3", "REVISION": "abc", "SOURCE": "https://git.example.com/qrelay"}
EVERY = {each.name: each.described(TOLD) for each in images()}
ENGINE = """#!/bin/sh
[ "$1" = info ] && exit ${INFO:-0}
echo "$0 $*" >> "$CALLS"
"""


def made(folder: Path, *names: str) -> Path:
    """A folder of container engines that write down what they are asked."""
    for name in names:
        (folder / name).write_text(ENGINE)
        (folder / name).chmod(0o755)
    return folder


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The script, with the engines of this folder alone; calls are written into folder/calls."""
    given = {**os.environ, "CALLS": str(folder / "calls"), "PATH": f"{folder}:/usr/bin:/bin", **environ}
    return subprocess.run([sys.executable, "-m", "scripts.images", *arguments], cwd=ROOT, env=given,
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_every_recipe_is_an_image_and_the_judge_is_two() -> None:
    assert EVERY.keys() == {*(f"qrelay-{name}" for name in IMAGES), "qrelay-judge-vllm"}


@pytest.mark.parametrize("name", EVERY)
def test_labels_say_version_commit_repository_and_licence(name: str) -> None:
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in EVERY[name]["labels"].items()}
    assert (labels["version"], labels["revision"], labels["source"]) == tuple(TOLD.values())
    assert labels["licenses"] == "Apache-2.0" and labels["description"]
    assert labels["title"] == name.removesuffix("-vllm").replace("-", " ")
    assert re.search(r"@sha256:[0-9a-f]{64}$", EVERY[name]["base"])
    assert EVERY[name]["user"] == "10001:10001"


def test_the_image_with_vllm_is_built_to_its_stage_with_its_own_pins() -> None:
    assert "judge-vllm" in EVERY["qrelay-judge-vllm"]["extras"]
    assert "--target vllm" in EVERY["qrelay-judge-vllm"]["build"]
    assert "CONSTRAINTS=constraints-vllm.txt" in EVERY["qrelay-judge-vllm"]["build"]


def test_the_description_is_json_and_names_this_commit() -> None:
    done = subprocess.run([sys.executable, "-m", "scripts.images", "qrelay-sink"], cwd=ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    (found,) = json.loads(done.stdout)
    assert found["labels"]["org.opencontainers.image.revision"] == origin()["REVISION"]


def test_the_first_engine_that_answers_builds_what_is_named(tmp_path: Path) -> None:
    made(tmp_path, "podman")
    done = run(tmp_path, "--build", "qrelay-sink", PIP_EXTRA_INDEX_URL="file:///packages")
    assert done.returncode == 0, done.stderr
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith(f"{tmp_path}/podman build -f deploy/docker/sink.Dockerfile -t qrelay-sink:")
    assert "--build-arg PIP_EXTRA_INDEX_URL ." in call and "file:///" not in call
    assert f"REVISION={origin()['REVISION']}" in call


def test_without_an_engine_that_answers_it_says_so_and_builds_nothing(tmp_path: Path) -> None:
    done = run(made(tmp_path, "docker", "podman", "buildah"), "--build", INFO="1")
    assert done.returncode == 1 and "no container engine answers here" in done.stderr
    assert not (tmp_path / "calls").exists()
    assert "no image is called sinc" in run(tmp_path, "sinc").stderr


def test_neither_a_token_nor_a_folder_of_this_machine_is_in_a_label() -> None:
    assert public("https://ana:secret@git.example.com/q.git") == "https://git.example.com/q.git"
    assert public("git@git.example.com:q.git") == "git@git.example.com:q.git"
    assert [public(each) for each in ("", "/home/ana/q", "../q", "file:///home/ana/q")] == [""] * 4
