"""What installed code imports and is not there: run by the Python of an image's environment, standard library only.

    python needs.py qrelay.services.sink qrelay.cli.main  # prints {"torch": ["qrelay/models/x.py"], …} as JSON

From every module of the packages given it follows imports of qrelay's own code, those inside functions too, and
looks for whatever else they import. A missing library that is imported late would otherwise show in production only.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

OWN = ("qrelay",)


def site() -> Path:
    """The folder that holds qrelay's packages."""
    spec = importlib.util.find_spec("qrelay")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def file_of(name: str, root: Path) -> Path | None:
    """The file of the module `name`; None where there is none of this name."""
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def files_of(name: str, root: Path) -> list[Path]:
    """The file of a module, or every file of a package."""
    folder = root.joinpath(*name.split("."))
    return list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(file: Path) -> Iterator[str]:
    """Every module that the file may import, `from a import b` as `a` and as `a.b`."""
    for node in ast.walk(ast.parse(file.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(packages: list[str]) -> dict[str, list[str]]:
    """The names, of others than qrelay, that these packages may import, each with the files that import them."""
    root = site()
    waiting = [file for name in packages for file in files_of(name, root)]
    seen: set[Path] = set()
    wanted: dict[str, set[str]] = {}
    while waiting:
        if (file := waiting.pop()) in seen:
            continue
        seen.add(file)
        for name in imports(file):
            top = name.partition(".")[0]
            if top not in OWN:
                wanted.setdefault(top, set()).add(str(file.relative_to(root)))
            elif found := file_of(name, root):
                waiting.append(found)
    return {name: sorted(files) for name, files in sorted(wanted.items()) if name not in sys.stdlib_module_names}


def missing(packages: list[str]) -> dict[str, list[str]]:
    """Those that cannot be imported here."""
    return {name: files for name, files in imported(packages).items() if importlib.util.find_spec(name) is None}


if __name__ == "__main__":
    print(json.dumps(missing(sys.argv[1:])))
