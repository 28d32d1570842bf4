"""What mkdocs.yml hooks into MkDocs: pages come from where they are in the repository, notebooks become pages.

A page's name is its path in the repository, so links hold as they are written. Files that pages link to come along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from click import unstyle
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final = (".", "docs", "services/*", "qrelay/*", "examples", "deploy")
"""Where pages are."""
NOTEBOOKS: Final = "examples"
WIDE: Final = ".md-grid { max-width: 80rem; }"
"""Room for lines of 118 columns beside the two menus."""
_LINK: Final = re.compile(r"\]\(([^)#\s]+)")
_TO_NOTEBOOK: Final = re.compile(r"\]\(([^)#\s:]+)\.ipynb\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's own files, the repository's pages, and what these link to."""
    texts = {path.relative_to(ROOT): path.read_text("utf8") for path in pages()}
    linked = {(ROOT / path.parent / link).resolve() for path, text in texts.items() for link in _LINK.findall(text)}
    found = [each for each in files if each.src_dir != config.docs_dir]
    found += [_page(config, path, text) for path, text in texts.items()]
    found += [_page(config, path.with_suffix(".md"), as_page(path)) for path in notebooks()]
    others = {path.relative_to(ROOT) for path in linked if path.is_file() and path.is_relative_to(ROOT)}
    for path in sorted((others | set(notebooks())) - texts.keys()):
        found.append(File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
    found.append(File.generated(config, "site.css", content=WIDE))
    return Files(found)


def pages() -> Iterator[Path]:
    """The repository's own pages."""
    return (path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/*.md")))


def notebooks() -> list[Path]:
    """Their paths in the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / NOTEBOOKS).glob("*.ipynb"))


def _page(config: MkDocsConfig, path: Path, text: str) -> File:
    """A page by its path in the repository; its address leaves `docs/` out."""
    file = File.generated(config, path.as_posix(), content=text)
    file.dest_uri = file.dest_uri if path.name == "README.md" else file.dest_uri.removeprefix("docs/")
    return file


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a notebook leads to its page."""
    return _TO_NOTEBOOK.sub(r"](\1.md)", markdown)


def as_page(path: Path) -> str:
    """A notebook's cells with what they printed, as Markdown, and the notebook itself to take along."""
    cells = json.loads((ROOT / path).read_text("utf8"))["cells"]
    title, *rest = (part for cell in cells for part in _parts(cell))
    download = f'<a href="../{path.name}" download>This page as a notebook</a>'
    return "\n\n".join((title, download, *rest))


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            yield "".join(data["text/html"])
        elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
            yield f"```text\n{unstyle(text)}\n```"
