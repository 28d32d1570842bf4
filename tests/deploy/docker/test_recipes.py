"""The Dockerfiles agree with pyproject.toml, with each other, and with what a restricted cluster accepts."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qrelay.cli.main import qrelay
from qrelay.settings.sections import SERVICES
from scripts.recipes import FOLDER, IMAGES, ROOT, Recipe, read
from scripts.requirements import extras, installs, named, project
from tests.deploy.docker.extras import BROUGHT_ALONG, WITHOUT, code_of, foreign, importable
from tests.deploy.docker.needs import imported

RECIPES = [read(name) for name in IMAGES]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
DIGEST = re.compile(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}")


def test_every_service_the_trainer_and_the_console_have_a_recipe() -> None:
    assert {path.stem for path in FOLDER.glob("*.Dockerfile")} == set(IMAGES) == {*SERVICES, "trainer", "console"}


@each_recipe
def test_the_base_is_one_image_pinned_by_digest(recipe: Recipe) -> None:
    assert DIGEST.fullmatch(recipe.arguments["PYTHON"])
    assert recipe.arguments["PYTHON"] == RECIPES[0].arguments["PYTHON"]
    bases = {rest.split(" AS ")[0] for rest in recipe.said("FROM")}
    assert bases <= {"${PYTHON}", *recipe.stages}


@each_recipe
def test_the_base_has_a_python_that_qrelay_runs_on(recipe: Recipe) -> None:
    version = re.match(r"python:(\d+\.\d+)", recipe.arguments["PYTHON"])
    assert version
    assert Requirement(f"python{project()['requires-python']}").specifier.contains(version.group(1))


@each_recipe
def test_every_extra_that_is_installed_exists(recipe: Recipe) -> None:
    assert set(recipe.extras) <= extras().keys()
    assert recipe.name in recipe.extras


@each_recipe
def test_an_image_installs_nothing_that_only_another_part_needs(recipe: Recipe) -> None:
    assert installs(recipe.extras) & foreign(recipe.extras) == set()


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        (
            "sink",
            {"torch", "transformers", "sentence-transformers", "bm25s", "matplotlib", "krippendorff"},
        ),
        ("reranker", {"sqlalchemy", "bm25s", "xllamacpp", "pyarrow", "matplotlib"}),
        ("retriever", {"sqlalchemy", "xllamacpp", "matplotlib"}),
        ("judge", {"bm25s", "pyarrow", "matplotlib", "krippendorff"}),
        ("trainer", {"xllamacpp", "kubernetes"}),
        ("console", {"torch", "transformers", "bm25s", "xllamacpp", "pyarrow", "matplotlib"}),
    ],
)
def test_what_is_foreign_to_an_image_is_found(name: str, absent: set[str]) -> None:
    assert absent <= foreign(read(name).extras)


@each_recipe
def test_what_the_code_imports_at_any_depth_comes_with_its_image(recipe: Recipe) -> None:
    found = imported(code_of(recipe.name))
    there = importable(installs(recipe.extras))
    assert found.keys() - there == WITHOUT.get(recipe.name, set()), found


def test_what_labels_on_one_machine_needs_no_library_of_training_parquet_or_clusters() -> None:
    """`make demo` installs the extra `label`; what else the code names is imported only where it is used."""
    found = imported(["qrelay.services", "qrelay.cli", "qrelay.runtime"])
    there = importable(installs(["label"]))
    assert found.keys() - there == {"datasets", "kubernetes", "peft", "psycopg", "pyarrow", "pymilvus", "vllm"}, found


def test_libraries_brought_along_are_brought_by_whom_the_table_says() -> None:
    for name, bringer in BROUGHT_ALONG.items():
        (extra,) = (each for each in ("embed", "milvus", "console") if bringer in named([each]))
        assert name in installs([extra])
        assert name not in named([extra])


@each_recipe
def test_a_container_runs_as_a_number_that_is_not_root(recipe: Recipe) -> None:
    for stage, instructions in recipe.stages.items():
        users = [instruction.rest for instruction in instructions if instruction.word == "USER"]
        inherits = "FROM service" in recipe.text and not users
        assert stage == "builder" or inherits or users[-1] == "10001:10001", stage
    assert recipe.said("USER")[-1] == "10001:10001"


@each_recipe
def test_what_a_container_runs_is_a_command_of_qrelay(recipe: Recipe) -> None:
    entry, *arguments = recipe.command
    assert entry in {point.name for point in importlib.metadata.entry_points(group="console_scripts")}
    shown = CliRunner().invoke(qrelay, [word for word in arguments if word != "--help"] + ["--help"])
    assert shown.exit_code == 0, shown.output


@each_recipe
def test_what_is_copied_exists_and_is_let_through_to_the_builder(recipe: Recipe) -> None:
    lines = (ROOT / ".dockerignore").read_text("utf8").splitlines()
    assert "*" in lines
    for source in recipe.sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in lines


def without_its_own(recipe: Recipe) -> list[str]:
    """The last stage as it should be in every recipe: without what says which image it is."""
    stage = recipe.stages["service" if "service" in recipe.stages else "1"][1:]
    return [f"{each.word} {each.rest}" for each in stage if each.word not in {"LABEL", "EXPOSE", "CMD"}]


@each_recipe
def test_the_images_differ_only_in_what_is_in_them(recipe: Recipe) -> None:
    assert without_its_own(recipe) == without_its_own(RECIPES[0])


def pins(file: str) -> Mapping[str, str]:
    lines = (ROOT / file).read_text("utf8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@each_recipe
def test_everything_that_an_image_installs_is_pinned(recipe: Recipe) -> None:
    assert installs(recipe.extras) <= pins("constraints.txt").keys()


def test_the_pins_of_the_image_with_vllm_are_within_the_extras() -> None:
    pinned = pins("deploy/docker/constraints-vllm.txt")
    for extra in ("embed", "judge", "judge-postgres", "judge-vllm"):
        for requirement in extras()[extra]:
            if requirement.name != "qrelay":
                assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
