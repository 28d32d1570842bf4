"""An image without a container engine: its recipe's builder stage, done here in an environment of its own.

Same files, same lines, same arguments; only the folders differ, and pip asks where this machine's pip asks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from scripts.recipes import ROOT, Recipe

NEEDS = Path(__file__).with_name("needs.py")
DOUBLES: Mapping[str, Mapping[str, str]] = {
    "retriever": {"QRELAY_RETRIEVER__ENGINE": "synthetic"},
    "reranker": {"QRELAY_RERANKER__SCORER": "fake"},
    "judge": {"QRELAY_JUDGE__BACKEND": "fake"},
    "sink": {},
    "console": {"QRELAY_CONSOLE__BIND": "127.0.0.1:0"},
}
"""What each service is told so that it needs neither model nor index."""


@dataclass(frozen=True)
class Installed:
    """What one recipe installs, in the environment `venv`."""

    recipe: Recipe
    venv: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / "bin" / "python"

    @property
    def megabytes(self) -> int:
        """Bytes of all files of the environment, in MB."""
        return sum(path.lstat().st_size for path in self.venv.rglob("*")) // 10**6

    def distributions(self) -> set[str]:
        """Canonical names of what is installed."""
        shown = self.output("-m", "pip", "list", "--format", "json")
        return {canonicalize_name(each["name"]) for each in json.loads(shown)}

    def largest(self, count: int = 8) -> list[tuple[int, str]]:
        """The largest packages: MB and folder, the largest first."""
        (packages,) = self.venv.glob("lib/python*/site-packages")
        sizes = [(sum(file.lstat().st_size for file in path.rglob("*")), path.name) for path in packages.iterdir()]
        return [(size // 10**6, name) for size, name in sorted(sizes, reverse=True)[:count]]

    def missing(self, *packages: str) -> dict[str, list[str]]:
        """What these packages' code imports, at any depth, and is not installed; with the files that import it."""
        found: dict[str, list[str]] = json.loads(self.output(str(NEEDS), *packages))
        return found

    def output(self, *arguments: str) -> str:
        """Standard output of the environment's Python, which sees nothing of this checkout (-I); fails where it
        fails."""
        command = [self.python, "-I", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def clean() -> dict[str, str]:
    """This process's environment without what would lead another interpreter to this one's packages, and without
    qrelay's own settings."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "QRELAY", "VIRTUAL_ENV"))
    }


def install(recipe: Recipe, folder: Path) -> Installed:
    """Do the recipe's builder stage below `folder`. Fails with pip's words where pip fails."""
    source, venv = folder / "src", folder / "venv"
    source.mkdir()
    for name in recipe.sources:
        _copy(ROOT / name, source / Path(name).name)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    told = {name: recipe.arguments[name] for name in ("EXTRAS", "CONSTRAINTS") if name in recipe.arguments}
    environ = clean() | told | {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", recipe.install], cwd=source, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Installed(recipe, venv)


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(path, target)


@contextmanager
def serving(image: Installed, folder: Path) -> Iterator[Path]:
    """The image's own command running on its double, ready by its own health check. Its home, current and temporary
    folders are below `folder`, its state in `folder`/state.

    Raises:
        AssertionError: it ended before it was ready; its log is in the text.
    """
    entry, *arguments = image.recipe.command
    environ = {"PATH": f"{image.venv / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    kept = {"home": "HOME", "tmp": "TMPDIR", "run": "QRELAY_ALL__RUN_DIR", "state": "QRELAY_ALL__DATA_DIR"}
    for name, variable in kept.items():
        (folder / name).mkdir()
        environ[variable] = str(folder / name)
    environ |= DOUBLES[image.recipe.name]
    (folder / "cwd").mkdir()
    with (folder / "log").open("wb") as log:
        command = [str(image.venv / "bin" / entry), *arguments]
        process = subprocess.Popen(command, cwd=folder / "cwd", env=environ, stdout=log, stderr=log)
    try:
        _await_ready(image, folder, process)
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert process.returncode == 0, (folder / "log").read_text("utf8")


def _await_ready(image: Installed, folder: Path, process: subprocess.Popen[bytes]) -> None:
    announced = folder / "run" / f"{image.recipe.name}.json"
    while process.poll() is None:
        if announced.exists():
            address = json.loads(announced.read_text("utf8"))["grpc"]
            check = [image.venv / "bin" / "qrelay", "healthcheck", address]
            if subprocess.run(check, env=clean(), capture_output=True, check=False).returncode == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"{image.recipe.name} ended before it was ready:\n{(folder / 'log').read_text('utf8')}")
