"""What each image installs, installed: its command starts, and it holds nothing of the other services.

`make test-images`. What each would install, by the metadata of what is installed here, is part of every run of the
tests: test_recipes.py.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.recipes import IMAGES, read
from tests.deploy.docker.extras import WITHOUT, code_of, foreign
from tests.deploy.docker.installed import DOUBLES, Installed, clean, install, serving

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]
"""Seconds a test: pip installs up to 2 GB in its first one, on machines that are busy."""


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """One image's environment, removed in the end; how long it took, how large it is and why go to the output."""
    started = time.monotonic()
    folder = tmp_path_factory.mktemp(request.param)
    installed = install(read(request.param), folder)
    sizes = ", ".join(f"{name} {size}" for size, name in installed.largest())
    seconds = time.monotonic() - started
    print(f"{request.param}: {installed.megabytes} MB, installed in {seconds:.0f} s; largest in MB: {sizes}")
    yield installed
    shutil.rmtree(folder)


def test_an_image_holds_nothing_that_only_another_part_needs(image: Installed) -> None:
    assert image.distributions() & foreign(image.recipe.extras) == set()


def test_what_the_code_imports_at_any_depth_is_in_its_image(image: Installed) -> None:
    missing = image.missing(*code_of(image.recipe.name))
    assert missing.keys() == WITHOUT.get(image.recipe.name, set()), missing


def test_its_versions_fit_together(image: Installed) -> None:
    assert "No broken requirements" in image.output("-m", "pip", "check")


def test_its_command_starts_and_writes_nothing_but_state(image: Installed, tmp_path: Path) -> None:
    if image.recipe.name not in DOUBLES:
        entry, *arguments = image.recipe.command
        command = [str(image.venv / "bin" / entry), *arguments]
        shown = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False)
        assert (shown.returncode, "--job" in shown.stdout) == (0, True), shown.stderr
        image.output("-c", "import qrelay.cli.train, qrelay.cli.job")
        return
    with serving(image, tmp_path) as folder:
        pass
    for name in ("home", "tmp", "cwd"):
        assert list((folder / name).iterdir()) == []
