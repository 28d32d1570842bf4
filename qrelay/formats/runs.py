"""Runs in TREC's format, plain or gzip: `query Q0 document rank score tag`, separated by blanks.

`read_run` is for evaluation, and orders as trec_eval does: by score, the highest first, ties by id. `read_systems` is
for what a system returned, and keeps the ranks that the file gives. The tag names the system.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.formats.documents import Run
from qrelay.formats.lines import BadRecord, parsed, text_lines
from qrelay.formats.tables import finite

Ranking = dict[str, tuple[int, float]]
"""document id -> (rank, score), as one system returned them for one query."""
_NO_RANK: Final = -1
_MOST_DIGITS: Final = 9


def read_run(path: Path) -> Run:
    """The run of one system, whatever its tags.

    Raises:
        MalformedInput: another line, a document twice, or a score that is not finite; it names the line.
    """
    found = _read(path, lambda _: "").get("", {})
    return {
        query_id: {doc_id: score for doc_id, (_, score) in ranking.items()} for query_id, ranking in found.items()
    }


def read_systems(path: Path) -> dict[str, dict[str, Ranking]]:
    """tag -> query id -> ranking, of a file that may hold several systems'. Ranks are the file's; where those of a
    query are no different numbers, they are those of the scores.

    Raises:
        MalformedInput: as `read_run`; also where nothing is ranked.
    """
    found = _read(path, str)
    if not found:
        raise MalformedInput(f"{path} ranks nothing: give a run, `query Q0 document rank score tag`")
    return {tag: {query_id: _usable(each) for query_id, each in run.items()} for tag, run in found.items()}


def _read(path: Path, system_of: Callable[[str], str]) -> dict[str, dict[str, Ranking]]:
    found: dict[str, dict[str, Ranking]] = {}

    def returned(line: str) -> None:
        fields = line.split()
        if len(fields) != 6:
            raise BadRecord("expected `query Q0 document rank score tag`")
        query_id, _, doc_id, rank, score, tag = fields
        ranking = found.setdefault(system_of(tag), {}).setdefault(query_id, {})
        if doc_id in ranking:
            raise BadRecord(f"{doc_id} is in the ranking of {query_id} twice")
        place = int(rank) if rank.isdecimal() and len(rank) <= _MOST_DIGITS else _NO_RANK
        ranking[doc_id] = place, finite(score, f"the score {score[:40]!r} of {doc_id}", float)

    deque(parsed(path, text_lines(path), returned), maxlen=0)
    return found


def _usable(ranking: Ranking) -> Ranking:
    ranks = {rank for rank, _ in ranking.values()}
    if len(ranks) == len(ranking) and _NO_RANK not in ranks:
        return ranking
    scores = {doc_id: score for doc_id, (_, score) in ranking.items()}
    return {doc_id: (rank, scores[doc_id]) for rank, doc_id in enumerate(ranked(scores), 1)}


def run_lines(run: Run, tag: str) -> Iterator[str]:
    """The run in TREC's format. An id or a tag with a blank would be another line: MalformedInput."""
    for query_id in sorted(run):
        for rank, doc_id in enumerate(ranked(run[query_id]), 1):
            for word in (query_id, doc_id, tag):
                if not word or len(word.split()) != 1:
                    raise MalformedInput(f"{word!r} has a blank, which a TREC run cannot hold: write --json instead")
            yield f"{query_id} Q0 {doc_id} {rank} {run[query_id][doc_id]!r} {tag}\n"


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Documents by score, best first; ties by id, the greater first, as trec_eval breaks them."""
    return sorted(scores, key=lambda doc_id: (scores[doc_id], doc_id), reverse=True)
