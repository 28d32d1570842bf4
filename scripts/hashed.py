"""constraints-hashed.txt: the pins of constraints.txt that qrelay runs on, each with the hashes of all its wheels,
or of its source where it has none.

    .venv-supply/bin/python -m scripts.hashed --write        # make it anew (`make hashes`, needs a package registry)
    .venv/bin/python -m scripts.hashed judge                 # print one image's part of it

The hashes are those of every wheel that the public registry has for a pin, for each kind of machine, so the file is
the same wherever it is made. What a part holds is read from the file alone: who brings what in stands below each pin.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

from packaging.utils import canonicalize_name

from scripts.recipes import IMAGES, ROOT, read
from scripts.requirements import named

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


def entries(text: str) -> dict[str, str]:
    """Canonical name -> its pin with hashes and the comment that says who brings it in."""
    starts = [match.start() for match in _PIN.finditer(text)] + [len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(starts)]
    return {canonicalize_name(part.partition("==")[0]): part for part in parts}


def bringers(entry: str) -> set[str]:
    """Canonical names of those that bring it in."""
    return {canonicalize_name(each) for each in _BRINGER.findall(entry)}


def part(extras: Iterable[str], text: str) -> dict[str, str]:
    """The entries that an installation with these extras may need, on any machine."""
    every = entries(text)
    brought = {name: bringers(entry) for name, entry in every.items()}
    found = named(extras) & every.keys()
    while more := {name for name, bringers in brought.items() if bringers & found} - found:
        found |= more
    return {name: every[name] for name in sorted(found)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("image", nargs="?", choices=IMAGES)
    arguments = parser.parse_args()
    if arguments.write:
        write()
    else:
        extras = read(arguments.image).extras if arguments.image else EXTRAS
        print("".join(part(extras, FILE.read_text("utf8")).values()), end="")


if __name__ == "__main__":
    main()
