"""Bills of materials, CycloneDX 1.6: of this environment, and of what each image installs.

    .venv/bin/python -m scripts.sbom [--out build/sbom]       # `make sbom`

The same pins give the same files. cyclonedx-bom is in .venv-supply (`make sbom` installs it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from qrelay import __version__
from scripts import hashed
from scripts.recipes import IMAGES, ROOT, read

TOOL: Final = ROOT / ".venv-supply" / "bin" / "cyclonedx-py"


def write(out: Path) -> list[Path]:
    """All of them into `out`. Raises CalledProcessError: the tool failed, by what it printed."""
    out.mkdir(parents=True, exist_ok=True)
    _ask(["environment", sys.executable], out / "qrelay.cdx.json")
    text = hashed.FILE.read_text("utf8")
    for image in IMAGES:
        pins = out / f"{image}.txt"
        pins.write_text("".join(hashed.part(read(image).extras, text).values()), "utf8")
        _ask(["requirements", str(pins)], out / f"{image}.cdx.json")
    return sorted(out.iterdir())


def _ask(arguments: list[str], out: Path) -> None:
    """One file; the version of qrelay, which pyproject.toml does not name, is added to it."""
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "-o", str(out)]
    subprocess.run([TOOL, *arguments, *options], cwd=ROOT, check=True)
    told = json.loads(out.read_text("utf8"))
    told["metadata"]["component"]["version"] = __version__
    out.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", "utf8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sbom")
    for path in write(parser.parse_args().out.resolve()):
        print(path)


if __name__ == "__main__":
    main()
