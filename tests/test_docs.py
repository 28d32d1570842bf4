"""Documents say what the code does: commands exist, links lead somewhere, the demo's files are whole."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.cli.serve import load_definition
from qrelay.formats.queries import parse_line
from qrelay.settings import load_settings
from qrelay.settings.sections import SERVICES

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "docs", "services/*", "qrelay/*", "examples", "deploy")
SCRIPTS = sorted(ROOT.glob("examples/*.sh"))
PAGES = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/*.md")) if path.name != "CHANGELOG.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_index_of_pages_names_each_page_once() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / "README.md").read_text("utf8"))
    named = Counter((ROOT / "docs" / link).resolve() for link in links)
    pages = {path.resolve() for path in PAGES} - {(ROOT / "docs" / "README.md").resolve()}
    assert pages <= set(named), pages - set(named)
    assert max(named.values()) == 1


def commands(page: Path) -> list[list[str]]:
    """`qrelay …` invocations at the start of indented or fenced lines (in scripts, of any); arrows are none."""
    start = r" *" if page.suffix == ".sh" else r"(?:    |\$ )"
    lines = re.findall(rf"^{start}qrelay ([a-z][^\n#|&]*)", page.read_text("utf8"), re.MULTILINE)
    return [line.split() for line in lines if "─" not in line]


def named(words: list[str]) -> list[str]:
    """The words that name a command, of groups within groups too."""
    command: click.Command | None = qrelay
    path: list[str] = []
    for word in words:
        command = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if command is None:
            break
        path.append(word)
    return path or words[:1]


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for words in commands(page):
        path = named(words)
        result = CliRunner().invoke(qrelay, [*path, "--help"])
        assert result.exit_code == 0, (path, result.output)
        for option in (word for word in words if word.startswith("--")):
            assert option.split("=")[0] in result.output, (words, option)


def test_the_makefile_has_the_promised_targets_and_help_lists_them() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    assert {"help", "setup", "demo", "test", "check", "protos", "up", "clean", "bench", "chaos"} <= names


def test_what_a_target_of_the_makefile_needs_is_defined_above_it() -> None:
    defined: set[str] = set()
    for line in (ROOT / "Makefile").read_text("utf8").splitlines():
        if assigned := re.match(r"(\w+) *[:?]?= ", line + " "):
            defined.add(assigned.group(1))
        elif rule := re.match(r"[^\t#.][^:]*:(?!=)([^#]*)", line):
            assert set(re.findall(r"\$\((\w+)\)", rule.group(0))) <= defined, line


def test_the_demo_has_about_forty_distinct_questions_and_valid_settings() -> None:
    lines = (ROOT / "qrelay" / "demo" / "queries.jsonl").read_text("utf8").splitlines()
    queries = [parse_line(line, "python-docs") for line in lines]
    assert 35 <= len(queries) <= 45
    assert max(Counter(query.query_id for query in queries).values()) == 1
    assert max(Counter(query.text for query in queries).values()) == 1
    for name in SERVICES:
        load_settings(load_definition(name).settings, name, file=ROOT / "qrelay" / "demo" / "qrelay.yaml", environ={})


def test_settings_shown_in_the_readme_hold() -> None:
    text = (ROOT / "README.md").read_text("utf8")
    shown = re.search(r"\n    judge:\n((?:      .*\n)+)", text)
    assert shown
    section = yaml.safe_load("judge:\n" + shown.group(1))["judge"]
    load_definition("judge").settings.model_validate(section)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_records_are_json(page: Path) -> None:
    for block in re.findall(r"-d '(\{.*?\})'", page.read_text("utf8")):
        json.loads(block)
