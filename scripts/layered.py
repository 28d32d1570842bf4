"""An environment of its own for what pins other versions than the project, layered over the one that runs this."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path


def layered(folder: Path) -> Path:
    """Make the environment, which sees its own packages first and then those of the running one; its package folder.
    Harmless to repeat."""
    venv.create(folder, with_pip=True)
    (folder / ".gitignore").write_text("*\n")
    below = sysconfig.get_path("purelib")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "_below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    return own


def pip_install(folder: Path, *arguments: str) -> None:
    """By the environment's own pip. Raises CalledProcessError."""
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *arguments], check=True)
