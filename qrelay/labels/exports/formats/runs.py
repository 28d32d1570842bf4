"""A folder with a TREC run a system: `bm25.run`, `dense.run`, ... (with splits `dev/bm25.run`); see `run.py`.

All four systems have a file, an empty one where no query has a result of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qrelay.labels.examples import Example
from qrelay.labels.exports.formats import run
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Output
from qrelay.types import SYSTEMS


class Runs:
    """The files of all systems."""

    def __init__(self, output: Output, options: Options) -> None:
        self.notes: Counter[str] = Counter()
        self._sinks = {
            (split, system): output.open(f"{split}/{system}.run" if split else f"{system}.run")
            for split in options.splits or ("",)
            for system in SYSTEMS
        }

    def write(self, item: Example) -> int:
        """The query's results of each system."""
        rows = 0
        for system in SYSTEMS:
            found = list(run.lines(item, system))
            self._sinks[item.split, system].write(b"".join(found))
            self.notes[system] += len(found)
            rows += len(found)
        return rows

    def close(self, _facts: Mapping[str, Any], /) -> None:
        """Nothing follows the last line."""


def open_writer(output: Output, options: Options) -> Runs:
    """A file a system."""
    return Runs(output, options)
