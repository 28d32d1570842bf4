"""constraints-hashed.txt: the pins of constraints.txt that qrelay runs on, each with the hashes of all its wheels,
or of its source where it has none.

    .venv-supply/bin/python scripts/hashed.py --write        # make it anew (`make hashes`, needs a package registry)
    .venv/bin/python scripts/hashed.py judge                 # print one image's part of it

The hashes are those of every wheel that the public registry has for a pin, for each kind of machine, so the file is
the same wherever it is made. What a part holds is read from the file alone: who brings what in stands below each pin.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FILE: Final = ROOT / "constraints-hashed.txt"
EXTRAS: Final = ("local", "milvus", "judge-postgres", "sink-postgres", "sink-kubernetes")
"""All that runs; developers' tools are not in it, and vLLM pins its own (deploy/docker/constraints-vllm.txt)."""
SOURCES: Final = ("nkeys",)
"""What has no wheel at all: a hundred lines of Python, pinned by the hash of its source."""
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_BRINGER: Final = re.compile(r"^    #(?: via)? +([A-Za-z0-9._-]+)(?: |$)", re.MULTILINE)


def write() -> None:
    """Resolve the extras for every platform within constraints.txt, and write the file."""
    wanted = [word for extra in EXTRAS for word in ("--extra", extra)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *wanted, "-c", "constraints.txt"]
    wheels = ["--only-binary", ":all:", *(word for name in SOURCES for word in ("--no-binary", name))]
    how = ["--generate-hashes", "--universal", "--python-version", "3.11", *wheels, "--no-header"]
    subprocess.run([*command, *how, "--quiet", "--no-config", "-o", str(FILE)], cwd=ROOT, check=True)


def canonical(name: str) -> str:
    """As registries spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(text: str) -> dict[str, str]:
    """Canonical name -> its pin with hashes and the comment that says who brings it in."""
    starts = [match.start() for match in _PIN.finditer(text)] + [len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(starts)]
    return {canonical(part.partition("==")[0]): part for part in parts}


def bringers(entry: str) -> set[str]:
    """Canonical names of those that bring it in."""
    return {canonical(each) for each in _BRINGER.findall(entry)}


def direct(extras: Iterable[str]) -> set[str]:
    """What these extras and qrelay itself name, extras of extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    waiting, texts = list(extras), list(project["dependencies"])
    while waiting:
        for text in project["optional-dependencies"][waiting.pop()]:
            inner = re.match(r"qrelay\[(.+?)\]", text)
            waiting += inner.group(1).split(",") if inner else []
            texts += [] if inner else [text]
    return {canonical(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in texts}


def part(extras: Iterable[str], text: str) -> dict[str, str]:
    """The entries that an installation with these extras may need, on any machine."""
    every = entries(text)
    brought = {name: bringers(entry) for name, entry in every.items()}
    found = direct(extras) & every.keys()
    while more := {name for name, bringers in brought.items() if bringers & found} - found:
        found |= more
    return {name: every[name] for name in sorted(found)}


def image_extras(image: str) -> list[str]:
    """The extras that an image's recipe installs."""
    recipe = (ROOT / "deploy" / "docker" / f"{image}.Dockerfile").read_text("utf8")
    found = re.search(r'^ARG EXTRAS="([^"]+)"', recipe, re.MULTILINE)
    if found is None:
        raise SystemExit(f"deploy/docker/{image}.Dockerfile names no EXTRAS")
    return found.group(1).split(",")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("image", nargs="?")
    arguments = parser.parse_args()
    if arguments.write:
        write()
    else:
        extras = image_extras(arguments.image) if arguments.image else EXTRAS
        print("".join(part(extras, FILE.read_text("utf8")).values()), end="")


if __name__ == "__main__":
    main()
