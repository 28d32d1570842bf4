"""The images: what each is, what its labels say, and the command that builds it.

    .venv/bin/python -m scripts.images [NAME …]          # JSON; `make images`
    .venv/bin/python -m scripts.images --build [NAME …]  # build them, where a container engine is at hand

Version, commit and repository become labels (org.opencontainers.image.*). PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are
passed on where they are set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from qrelay import __version__
from scripts.package import git
from scripts.recipes import FOLDER, IMAGES, ROOT, Recipe, read

ENGINES: Final = ("docker", "podman", "buildah")
VLLM: Final = {"EXTRAS": "judge,judge-postgres,judge-vllm", "CONSTRAINTS": "constraints-vllm.txt"}
PASSED_ON: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
_LABEL: Final = re.compile(r'(org\.opencontainers\.image\.\w+)="([^"]*)"')


@dataclass(frozen=True)
class Image:
    """One image. target: the stage of its recipe, "" for the last. arguments: of the build, beside the labels'."""

    name: str
    recipe: Recipe
    target: str
    arguments: Mapping[str, str]

    def described(self, told: Mapping[str, str]) -> dict[str, Any]:
        """What it is, as JSON. told: `origin`."""
        values = {**self.recipe.arguments, **self.arguments, **told}
        labels = dict(_LABEL.findall(" ".join(self.recipe.said("LABEL"))))
        return {
            "image": f"{self.name}:{told['VERSION']}",
            "recipe": str((FOLDER / f"{self.recipe.name}.Dockerfile").relative_to(ROOT)),
            "target": self.target,
            "base": values["PYTHON"],
            "extras": values["EXTRAS"].split(","),
            "labels": {name: re.sub(r"\$\{(\w+)\}", lambda at: values[at[1]], text) for name, text in labels.items()},
            "ports": [int(port) for text in self.recipe.said("EXPOSE") for port in text.split()],
            "user": self.recipe.said("USER")[-1],
            "command": self.recipe.command,
            "build": shlex.join(self.build("docker", told)),
        }

    def build(self, engine: str, told: Mapping[str, str]) -> list[str]:
        """The command that builds it, at the root of the checkout."""
        given = [f"{name}={value}" for name, value in {**self.arguments, **told}.items()]
        given += [name for name in PASSED_ON if os.environ.get(name)]
        options = [word for each in given for word in ("--build-arg", each)]
        stage = ["--target", self.target] if self.target else []
        file = f"deploy/docker/{self.recipe.name}.Dockerfile"
        return [engine, "build", "-f", file, "-t", f"{self.name}:{told['VERSION']}", *stage, *options, "."]


def images() -> Iterator[Image]:
    """All of them."""
    for name in IMAGES:
        yield Image(f"qrelay-{name}", read(name), "", {})
    yield Image("qrelay-judge-vllm", read("judge"), "vllm", VLLM)


def origin() -> dict[str, str]:
    """The arguments that labels are made of: version, commit, and the repository where there is one."""
    changed = "-changed" if git("status", "--porcelain") else ""
    remotes = git("remote").split()
    address = git("remote", "get-url", "origin") if "origin" in remotes else ""
    return {"VERSION": __version__, "REVISION": git("rev-parse", "HEAD") + changed, "SOURCE": public(address)}


def public(address: str) -> str:
    """A repository's address without the name and the token that it may hold; "" where it is a folder."""
    parts = urlsplit(address)
    if not parts.netloc:
        return address if re.match(r"[\w.-]+@[\w.-]+:", address) else ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def engine() -> str:
    """The first container engine that answers. Raises SystemExit: none does."""
    for name in ENGINES:
        if shutil.which(name) and not subprocess.run([name, "info"], capture_output=True, check=False).returncode:
            return name
    raise SystemExit(f"no container engine answers here ({', '.join(ENGINES)}): start one, or build elsewhere")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("name", nargs="*")
    arguments = parser.parse_args()
    every = {each.name: each for each in images()}
    if unknown := sorted(set(arguments.name) - every.keys()):
        raise SystemExit(f"no image is called {', '.join(unknown)}; there are {', '.join(every)}")
    chosen, told = [every[name] for name in arguments.name or every], origin()
    if not arguments.build:
        print(json.dumps([each.described(told) for each in chosen], indent=2))
        return 0
    by = engine()
    for each in chosen:
        print(shlex.join(each.build(by, told)), file=sys.stderr)
        subprocess.run(each.build(by, told), cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
