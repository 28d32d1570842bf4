"""The documentation as a site: complete, without a network, and broken by whatever leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import markdown
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "docs", "services/*", "qrelay/*", "examples", "deploy")
PAGES = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/*.md"))]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//|<link\b[^>]*\bhref=["'](?:https?:)?//"""
)
BLOCKS = ("h2", "h3", "li", "ul", "ol", "pre", "table", "tr")


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The site of the mkdocs.yml in `folder`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_and_notebook_has_a_place_in_the_site(site: Path) -> None:
    names = [*PAGES, *ROOT.glob("examples/*.ipynb")]
    assert len(names) > 40
    for path in names:
        at = path.relative_to(ROOT).with_suffix("")
        at = at.parent if at.name == "README" else Path(str(at).removeprefix("docs/"))
        assert (site / at / "index.html").exists(), path


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert not [page for page in pages if LOADED.search(page.read_text("utf8"))]
    assert not [
        sheet
        for sheet in site.rglob("*.css")
        if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text())
    ]


def test_the_client_is_described_by_its_own_words(site: Path) -> None:
    page = (site / "api" / "index.html").read_text("utf8")
    for name in ("qrelay.client.AsyncClient.retrieve", "qrelay.types.JudgedSet", "qrelay.errors.UnknownCollection"):
        assert f'id="{name}"' in page, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_read_alike_on_the_site_and_where_the_code_is(page: Path) -> None:
    text = page.read_text("utf8")
    there = MarkdownIt("commonmark").enable("table").render(text)
    here = markdown.markdown(text, extensions=["tables", "sane_lists", "pymdownx.superfences"])
    for tag in BLOCKS:
        opened = re.compile(f"<{tag}[ >]")
        assert len(opened.findall(here)) == len(opened.findall(there)), f"{tag}: indent what a list holds by 4"


def small(folder: Path, text: str) -> Path:
    """A site by the real settings, of two pages and a file; the first page holds the text."""
    settings, _, _ = (ROOT / "mkdocs.yml").read_text("utf8").partition("\nnav:\n")
    nav = "\nnav: [{Start: README.md}, {There: docs/there.md}]\n"
    (folder / "mkdocs.yml").write_text(re.sub(r"\nwatch: .*", "", settings) + nav)
    for name in ("docs", "scripts"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "scripts" / "site.py", folder / "scripts")
    (folder / "docs" / "there.md").write_text("# There\n\n## A place\n")
    (folder / "code.py").write_text("pass\n")
    (folder / "README.md").write_text(f"# Start\n\n{text}\n")
    return folder


def test_links_hold_as_they_are_written_in_the_repository(tmp_path: Path) -> None:
    done = build(small(tmp_path, "[a](docs/there.md#a-place) and [b](code.py)"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert 'href="there/#a-place"' in (tmp_path / "out" / "index.html").read_text("utf8")
    assert (tmp_path / "out" / "code.py").exists()


@pytest.mark.parametrize(("text", "named"), [
    ("[a](docs/gone.md)", "docs/gone.md"),
    ("[a](docs/there.md#gone)", "#gone"),
    ("[a](#gone)", "#gone"),
    ("[a](gone.py)", "gone.py"),
    ("[a](/docs/there.md)", "/docs/there.md"),
])  # fmt: skip
def test_a_link_that_leads_nowhere_breaks_the_build(text: str, named: str, tmp_path: Path) -> None:
    done = build(small(tmp_path, text), tmp_path / "out")
    assert done.returncode != 0 and named in done.stderr, done.stderr


def test_a_page_without_a_place_in_the_navigation_breaks_the_build(tmp_path: Path) -> None:
    folder = small(tmp_path, "text")
    (folder / "docs" / "lost.md").write_text("# Lost\n")
    done = build(folder, tmp_path / "out")
    assert done.returncode != 0 and "lost.md" in done.stderr
