"""Generated files against their sources: protobuf code, the reference pages (settings, commands, protos, metrics,
exit codes), the fields of experiments, the benchmarks' page and sizing.

    python -m scripts.check_generated            # compare; exit 1 and say what differs
    python -m scripts.check_generated --write    # generate

Also runs `buf lint`, and `buf breaking` against the main branch where git knows one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qrelay.cli.config import reference_page
from qrelay.settings.sections import CLASSES
from scripts import benchmarks_page, reference_pages, training_page
from scripts.recipes import ROOT

PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
GENERATED = ROOT / "qrelay" / "v1"
REFERENCE = ROOT / "docs" / "configuration.md"
TRAINING = ROOT / "docs" / "training.md"


def generate(target: Path) -> None:
    """Python code of every proto under `target`/qrelay/v1, and its types: protoc writes those of messages,
    mypy-protobuf those of services."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}"]
    command += [f"--{kind}={target}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    command += [f"--plugin={_binary('protoc-gen-mypy_grpc')}", f"--mypy_grpc_out=quiet:{target}"]
    subprocess.run([*command, *map(str, PROTOS)], check=True)


def stale(fresh: Path) -> list[str]:
    """Names of generated files that differ from `fresh`, or should not be there."""
    wanted = {path.name: path for path in (fresh / "qrelay" / "v1").iterdir()}
    present = {path.name: path for path in GENERATED.glob("*_pb2*")}
    return sorted(
        name
        for name in wanted.keys() | present.keys()
        if name not in wanted or name not in present or wanted[name].read_bytes() != present[name].read_bytes()
    )


def buf(*arguments: str) -> int:
    """Run buf on protos/; its findings go to standard output."""
    return subprocess.run([_binary("buf"), *arguments], cwd=ROOT / "protos", check=False).returncode


def _binary(name: str) -> str:
    """The program of this environment, else the one on PATH."""
    found = Path(sys.executable).parent / name
    return str(found) if found.exists() else shutil.which(name) or name


def breaking() -> int:
    """`buf breaking` against main, where there is a main that has protos."""
    shown = subprocess.run(
        ["git", "cat-file", "-e", "main:protos/buf.yaml"], cwd=ROOT, check=False, capture_output=True
    )
    return buf("breaking", "--against", "../.git#branch=main,subdir=protos") if shown.returncode == 0 else 0


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that is generated, in whole or in part, and what it must hold."""
    yield REFERENCE, reference_page(list(CLASSES)) + "\n"
    yield TRAINING, training_page.page(TRAINING.read_text("utf8"))
    yield from reference_pages.pages()
    yield from benchmarks_page.pages()


def main() -> int:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if "--write" in sys.argv:
            for path in (Path(folder) / "qrelay" / "v1").iterdir():
                shutil.copy(path, GENERATED / path.name)
            for path, text in pages():
                path.write_text(text, "utf8")
            return 0
        problems = stale(Path(folder))
    problems += [
        str(path.relative_to(ROOT)) for path, text in pages() if not path.exists() or path.read_text("utf8") != text
    ]
    for name in problems:
        print(f"{name} does not match its source: run `make protos` and commit")
    return 1 if problems or buf("lint") or breaking() else 0


if __name__ == "__main__":
    sys.exit(main())
