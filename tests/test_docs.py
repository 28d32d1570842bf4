"""Documents say what the code does: commands exist, links lead somewhere, the demo's files are whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from qrelay.cli.main import qrelay
from qrelay.cli.serve import load_definition
from qrelay.formats.queries import parse_line
from qrelay.settings import load_settings
from qrelay.settings.sections import CLASSES, SERVICES, settings_classes
from tests.command_lines import blocks, calls, named, parsed, spans

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "docs", "services/*", "qrelay/*", "examples", "deploy")
SCRIPTS = sorted(ROOT.glob("examples/*.sh"))
NOTEBOOKS = sorted(ROOT.glob("examples/*.ipynb"))
MAKEFILE = (ROOT / "Makefile").read_text("utf8")
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


def shown(*pages: Path) -> list[Any]:
    """Each block of shell lines, under its page's name."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{at}")
        for page in pages
        for at, block in enumerate(blocks(page))
        if any(calls(block))
    ]


BLOCKS = shown(*PAGES, *SCRIPTS, *NOTEBOOKS)


def test_blocks_of_commands_are_found_in_every_kind_of_page() -> None:
    found = [block.id for block in BLOCKS]
    assert len(found) > 100
    for page in ("README.md", "docs/retrieval.md", "deploy/README.md", "examples/qualify_judge.sh",
                 "examples/train_and_gate.ipynb"):  # fmt: skip
        assert any(each.startswith(page) for each in found), page


@pytest.mark.parametrize("block", BLOCKS)
def test_every_command_shown_parses_as_it_stands(block: list[str]) -> None:
    for words in calls(block):
        parsed(qrelay, words, ())


@pytest.mark.parametrize("block", BLOCKS)
def test_no_command_keeps_the_terminal_from_the_next_line_of_its_block(block: list[str]) -> None:
    for words in list(calls(block))[:-1]:
        assert not stays(words), " ".join(words)


def stays(words: list[str]) -> bool:
    """Whether it ends at Ctrl-C alone."""
    ends = {"up": "--detach", "top": "--once", "serve": "--help", "console": "--help", "mcp": "--help"}
    return "--follow" in words or (words[0] in ends and ends[words[0]] not in words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_named_within_sentences_exist_with_their_options(page: Path) -> None:
    for words in spans(page):
        command, rest = named(words)
        whole = not isinstance(command, click.Group) or command.invoke_without_command
        assert whole or not rest or "…" in rest, words
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        for option in (word for word in rest if word.startswith("--")):
            assert option.split("=")[0].rstrip(",") in known, (words, option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_modules_and_files_that_commands_name_are_there(page: Path) -> None:
    for line in (line for block in blocks(page) for line in block):
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), line
        for module in re.findall(r"python -m ((?:benchmarks|scripts|tests)[\w.]*)", line):
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), line
        for path in re.findall(r"(?<![\w/$])(?:deploy/docker|deploy/k8s|examples|scripts|tests)/[\w./-]+", line):
            assert (ROOT / path).exists(), line


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


def settings_shown() -> list[Any]:
    """Every block that begins with a section of settings, under its page's name."""
    begins = re.compile(rf"(?:#.*\n)*(?:{'|'.join(CLASSES)}|all):(?: \{{| *(?:#.*)?\n )")
    found = ((page, textwrap.dedent(text)) for page in PAGES for text in texts(page))
    shown = [(page, text) for page, text in found if begins.match(text)]
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}-{at}") for at, (page, text) in enumerate(shown)]


def texts(page: Path) -> list[str]:
    """The page's blocks, indented or fenced, as they would stand in a file."""
    text = page.read_text("utf8")
    fenced = re.findall(r"^ *```ya?ml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return fenced + re.findall(r"(?:^ {4,}\S.*\n)(?:(?: {4,}.*)?\n)*", plain, re.MULTILINE)


@pytest.mark.parametrize("text", settings_shown())
def test_settings_shown_hold(text: str) -> None:
    assert not re.search(r"^qrelay ", text, re.MULTILINE), "give the commands a block of their own"
    shown = yaml.safe_load(text)
    for name, values in shown.items():
        settings_classes()[name].model_validate(values)
    command = shown.get("sink", {}).get("training", {}).get("command", ["qrelay"])
    assert command[0] == "qrelay", "a job's command begins with the program"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_records_are_json(page: Path) -> None:
    for block in re.findall(r"-d '(\{.*?\})'", page.read_text("utf8")):
        json.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_shown_defines_or_imports_every_name(page: Path) -> None:
    cells = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text("utf8"), re.MULTILINE | re.DOTALL))
    if cells:
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F821", "-"]
        done = subprocess.run(command, input=cells, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
