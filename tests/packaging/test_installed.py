"""The wheel in empty environments outside the checkout, as people install it: `make test-wheel`.

The extra `light` is measured: what it takes, that nothing of PyTorch is in it, that client, commands and sink work.
With `local` the whole demo runs, on real models.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import package
from scripts.recipes import ROOT, read
from tests.deploy.docker.installed import Installed, clean, serving

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(7200)]
"""Seconds a test: `local` installs 2 GB, and the demo labels for minutes, on machines that are busy."""

LIMIT_MB = 200
HEAVY = {"torch", "transformers", "sentence-transformers", "numpy", "scipy", "pyarrow", "datasets"}
UV = ROOT / ".venv-supply" / "bin" / "uv"
BUILDERS = ROOT / "tests" / "labels" / "builders.py"
LABELLED = f"""
import runpy, sys
from qrelay import Client
made = runpy.run_path({str(BUILDERS)!r})["judged_set"]
with Client(sink=sys.argv[1], collection="docs") as client:
    assert list(client.ingest([made("q1"), made("q2"), made("q1")])) == [1, 1, 0]
    print(client.export("qrels", sys.argv[2]).rows)
    assert len(list(client.labels("grade>=2"))) == 2
assert not {{name for name in sys.modules if name.partition(".")[0] in {HEAVY!r}}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.build(tmp_path_factory.mktemp("dist"), package.epoch())[0]


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(wheel, "light", tmp_path_factory.mktemp("light"))


def install(wheel: Path, extra: str, folder: Path) -> Installed:
    """The wheel with one extra in a new environment, by its own pip and the pins of constraints.txt; what it takes,
    without pip itself, goes to the output."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    made = Installed(read("sink"), venv)
    before = made.megabytes
    pip = ["-m", "pip", "install", "--no-compile", "-c", str(ROOT / "constraints.txt")]
    made.output(*pip, f"{wheel}[{extra}]")
    sizes = ", ".join(f"{name} {size}" for size, name in made.largest())
    print(f"{extra}: {made.megabytes - before} MB; largest in MB: {sizes}")
    return made


def command(made: Installed, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed qrelay, in an empty folder."""
    return subprocess.run([made.venv / "bin" / "qrelay", *arguments], cwd=folder, env=clean(), capture_output=True,
                          text=True, check=False)  # fmt: skip


@pytest.fixture(scope="module")
def sink(light: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a sink that runs from the light environment."""
    with serving(light, tmp_path_factory.mktemp("sink")) as folder:
        yield json.loads((folder / "run" / "sink.json").read_text("utf8"))["grpc"]


def test_the_light_extra_takes_less_than_200_mb_and_holds_nothing_heavy(light: Installed) -> None:
    assert light.megabytes < LIMIT_MB, light.largest()
    assert not HEAVY & light.distributions()
    assert "No broken requirements" in light.output("-m", "pip", "check")


def test_a_label_goes_into_a_sink_and_out_again_and_nothing_heavy_is_imported(
    light: Installed, sink: str, tmp_path: Path
) -> None:
    assert light.output("-c", LABELLED, sink, str(tmp_path / "docs.qrels")).strip() == "4"
    assert len((tmp_path / "docs.qrels").read_text("utf8").splitlines()) == 4


def test_a_command_that_needs_more_names_the_extra_that_brings_it(light: Installed, tmp_path: Path) -> None:
    assert command(light, tmp_path, "--version").stdout.startswith("qrelay, version ")
    done = command(light, tmp_path, "audit", "--collection", "docs")
    assert done.returncode == 78 and "pip install 'qrelay[sink]' brings it" in done.stderr
    assert command(light, tmp_path, "feed", "--help").returncode == 0


def run_by_uv(wheel: str, folder: Path, *arguments: str) -> str:
    """Standard output of the wheel's command by `uv tool run`, in an empty folder; fails where it fails."""
    asked = ["--no-config", "--constraints", str(ROOT / "constraints.txt"), "--from", wheel, "qrelay", *arguments]
    done = subprocess.run([UV, "tool", "run", *asked], cwd=folder, env=clean(), capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_runner_of_tools_runs_the_wheel_at_once_without_an_extra_too(
    wheel: Path, sink: str, tmp_path: Path
) -> None:
    assert "Exit codes:" in run_by_uv(str(wheel), tmp_path, "--help")
    found = run_by_uv(f"{wheel}[light]", tmp_path, "dlq", "list", "--json", "--sink", sink)
    assert json.loads(found)["dead_letters"] == []


def test_the_demo_ends_with_labels_where_there_is_no_checkout(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("local")
    local = install(wheel, "local", folder)
    assert "No broken requirements" in local.output("-m", "pip", "check")
    assert local.output("-c", "import importlib.util as u; print(u.find_spec('services'))").strip() == "None"
    done = command(local, folder, "demo")
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "40 queries labelled by four processes" in done.stdout and "160 judgments, 0 missing" in done.stdout
    assert len((folder / "demo-output" / "python-docs.qrels").read_text("utf8").splitlines()) == 160
