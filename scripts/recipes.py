"""The Dockerfiles of deploy/docker, read: stages, instructions, and what `pip install` line makes an image.

Only as much of the format as those recipes use: one instruction a line, `\\` continues it, `#` begins a comment line.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "docker"
IMAGES = ("retriever", "reranker", "judge", "sink", "trainer", "console")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and the rest of it on one line."""

    word: str
    rest: str


@dataclass(frozen=True)
class Recipe:
    """One Dockerfile."""

    name: str
    text: str

    @cached_property
    def instructions(self) -> list[Instruction]:
        """All of them, in order."""
        lines = [line for line in self.text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
        return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]

    @cached_property
    def stages(self) -> dict[str, list[Instruction]]:
        """The instructions of each stage by its name; of one without a name by its number, from 0."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            if instruction.word == "FROM":
                name = re.search(r" AS (\S+)$", instruction.rest)
                found[name.group(1) if name else str(len(found))] = []
            if found:
                list(found.values())[-1].append(instruction)
        return found

    def said(self, word: str, stage: str | None = None) -> list[str]:
        """What follows each instruction `word`, in one stage or everywhere."""
        there = self.instructions if stage is None else self.stages[stage]
        return [instruction.rest for instruction in there if instruction.word == word]

    @cached_property
    def arguments(self) -> dict[str, str]:
        """Build arguments with their defaults."""
        pairs = (rest.partition("=") for rest in self.said("ARG"))
        return {name: value.strip('"') for name, _, value in pairs}

    @property
    def extras(self) -> list[str]:
        """The extras of qrelay that are installed."""
        return self.arguments["EXTRAS"].split(",")

    @property
    def install(self) -> str:
        """The shell line that installs qrelay, as it stands there, without BuildKit's cache mount."""
        (line,) = (rest for rest in self.said("RUN", "builder") if "pip install" in rest)
        return re.sub(r"^--mount=\S+\s+", "", line)

    @property
    def sources(self) -> list[str]:
        """What the builder copies into its working folder, relative to the root of the checkout."""
        return [source for rest in self.said("COPY", "builder") for source in rest.split()[:-1]]

    @property
    def command(self) -> list[str]:
        """ENTRYPOINT and CMD: what a container runs where nothing else is said."""
        return [*json.loads(self.said("ENTRYPOINT")[-1]), *json.loads(self.said("CMD")[-1])]


def read(name: str) -> Recipe:
    """The recipe of one image."""
    return Recipe(name, (FOLDER / f"{name}.Dockerfile").read_text("utf8"))
