"""deploy/README.md: the commands that it shows name services, images and options that exist."""

from __future__ import annotations

import re
import shlex

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from scripts.recipes import IMAGES, ROOT, read
from tests.deploy.docker.test_compose import BUILT, VARIANTS

TEXT = (ROOT / "deploy" / "README.md").read_text("utf8")
RUNS = re.findall(r"docker compose run ((?:--rm |-T )+)([\w-]+)((?: [^`\n<]+)?)", TEXT)
ROWS = re.findall(
    r"^\| `(qrelay-[a-z-]+)` \| `docker/([a-z]+)\.Dockerfile`[^|]*\| `([a-z,-]+)` \|", TEXT, re.MULTILINE
)


@pytest.mark.parametrize(("service", "rest"), [run[1:] for run in RUNS], ids=lambda text: text.strip())
def test_every_compose_command_runs_a_service_with_options_that_exist(service: str, rest: str) -> None:
    assert VARIANTS[0]["services"][service]["profiles"] == ["tools"]
    words = shlex.split(rest)
    if words:
        shown = CliRunner().invoke(qrelay, [words[0], "--help"])
        assert shown.exit_code == 0, shown.output
        assert all(word in shown.output for word in words if word.startswith("--"))


def test_the_commands_that_lead_to_labels_are_shown() -> None:
    assert {run[2].split()[0] for run in RUNS if run[2]} >= {"feed", "export"}


def test_the_table_of_images_says_what_the_recipes_install() -> None:
    plain = {image: extras.split(",") for image, _, extras in ROWS if image in BUILT}
    assert plain == {f"qrelay-{name}": read(name).extras for name in IMAGES}
    vllm = [(recipe, extras) for image, recipe, extras in ROWS if image == "qrelay-judge-vllm"]
    assert vllm == [("judge", "judge,judge-postgres,judge-vllm")]
    assert "EXTRAS=judge,judge-postgres,judge-vllm" in read("judge").text
