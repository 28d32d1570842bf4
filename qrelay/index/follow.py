"""`qrelay index build --follow`: the index of a JSONL file that grows, whether it is appended to, rotated or written
anew.

What is appended while one version is made goes into the next; the first makes the index where there is none. A line
with the id of an earlier one replaces that document. Started again, it reads the file from its beginning, and
documents that are there already change nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.feed.source import open_lines
from qrelay.index.build import BuildRequest, BuildResult, build_index
from qrelay.index.manifest import current_version
from qrelay.index.update import UpdateRequest, update_index
from qrelay.models.embedder import Embedder

MOST_LINES: Final = 100_000
"""Of one update."""
_GATHERED: Final = ".followed.jsonl"


async def follow_corpus(
    request: BuildRequest, embedder: Embedder, say: Callable[[str], None], built: Callable[[BuildResult], None]
) -> None:
    """Build and update until cancelled. `built` is told of each new version.

    Raises:
        MalformedInput: the source is no JSONL file that can be followed.
        CorpusIndexError: as `update_index`.
    """
    source = Path(request.source)
    if source.suffix != ".jsonl":
        raise MalformedInput(f"{source} cannot be followed: give a JSONL file, not compressed, that grows")
    home = request.out / request.collection
    home.mkdir(parents=True, exist_ok=True)
    async for gathered in _gathered(open_lines(source, follow=True), home / _GATHERED):
        try:
            result = _build(request, gathered, home, embedder, say)
        except MalformedInput as error:  # none of these lines holds a document
            say(str(error))
        else:
            if result is not None:
                built(result)


def _build(
    request: BuildRequest, gathered: Path, home: Path, embedder: Embedder, say: Callable[[str], None]
) -> BuildResult | None:
    """None: nothing was new."""
    if current_version(home) is None:
        return build_index(request, embedder, say, str(gathered))
    update = UpdateRequest(request.collection, request.out, str(gathered), columns=request.columns)
    return update_index(update, embedder, say).built


async def _gathered(lines: AsyncIterator[bytes | None], path: Path) -> AsyncIterator[Path]:
    """The lines that have come until there are none for now, in a file, again and again."""
    begun: list[bytes] = []
    count = 0
    path.unlink(missing_ok=True)
    async for line in lines:
        if line is not None:
            begun.append(line + b"\n")
            count += 1
        if begun and (line is None or len(begun) >= _BLOCK_LINES):
            with path.open("ab") as out:
                out.writelines(begun)
            begun.clear()
        if count and (line is None or count >= MOST_LINES):
            yield path
            path.unlink()
            count = 0


_BLOCK_LINES: Final = 1024
