"""Run the notebooks of examples/ in a kernel of this environment: `make notebooks`.

python -m scripts.notebooks              # run them in a copy; exit 1 and show the first cell that fails
python -m scripts.notebooks --write      # and store what they print, which the site shows
python -m scripts.notebooks NAME …       # only these
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import nbformat
from nbclient import NotebookClient

from scripts.recipes import ROOT

EXAMPLES: Final = ROOT / "examples"
_CHECKOUT: Final = "~/qrelay"
"""What stored output says instead of the temporary folder."""


def run(path: Path, folder: Path, **environ: str) -> nbformat.NotebookNode:
    """The notebook with what its cells print, run in `folder`, beside its data; services that it left are stopped.

    Raises CellExecutionError: a cell failed.
    """
    shutil.copytree(EXAMPLES / "workshop", folder / "workshop")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `qrelay` is this environment's
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", record_timing=False, coalesce_streams=True,
                            resources={"metadata": {"path": str(folder)}})  # fmt: skip
    try:
        client.execute(env={**os.environ, "PATH": programs, **environ})
    finally:
        for data_dir in folder.glob("notebook-*"):
            subprocess.run(
                ["qrelay", "down", "--data-dir", data_dir], env={**os.environ, "PATH": programs}, check=False
            )
    return notebook


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        if arguments.names and path.stem not in arguments.names:
            continue
        with tempfile.TemporaryDirectory() as checkout:
            notebook = run(path, Path(checkout, EXAMPLES.name))
        print(f"{path.name} ran")
        if arguments.write:
            path.write_text(f"{nbformat.writes(notebook).replace(checkout, _CHECKOUT)}\n", "utf8")


if __name__ == "__main__":
    main()
