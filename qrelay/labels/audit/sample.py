"""`qrelay audit sample`: negatives for a second, stronger judgment, as a file that people and commands can take.

The file holds annotated pairs as `qrelay judge` reads and writes them: TSV in UTF-8 under the header query_id,
passage_id, grade (empty: to be filled in), query, title, text; then reason, the mining rule that chose the negative.
What the first judge said is not in it, for a grader must not see it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qrelay.errors import BackendUnavailable, InputError
from qrelay.files import write_atomic
from qrelay.formats.tables import read_rows, tsv_line
from qrelay.labels.audit.audit import Request, who_is_who
from qrelay.labels.audit.false_negatives import FalseNegatives, SampledNegative
from qrelay.labels.audit.judges import Judges
from qrelay.labels.examples import examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules

COLUMNS: Final = ("query_id", "passage_id", "grade", "query", "title", "text", "reason")


def draw(ledger: Ledger, collection: str, request: Request, rules: MiningRules) -> tuple[list[SampledNegative], int]:
    """(the sample by query_id and passage_id, how many negatives it was drawn from). The same as `audit` draws.

    Raises:
        InputError: there is no negative; otherwise as `audit`.
    """
    with ledger.snapshot() as snapshot:
        snapshot.require_collection(collection)
        judges: Judges = who_is_who(snapshot, collection, request, rules)[0]
        check = FalseNegatives(judges, size=request.sample_size, seed=request.seed)
        for record in examples(snapshot, collection, judges.audited, rules, people=True):
            check.add(record)
    drawn = check.sample.drawn()
    if not drawn:
        raise InputError(
            f"collection {collection} has no negative to sample: no query has a positive and a hard negative"
        )
    return drawn, check.sample.population


def write_sample(path: Path, drawn: Sequence[SampledNegative]) -> None:
    """Writes the file, whole or not at all; tabs and line breaks of texts become blanks.

    Raises:
        BackendUnavailable: the folder cannot be written, or the disk is full.
    """
    try:
        write_atomic(path, b"".join(map(tsv_line, (COLUMNS, *map(_fields, drawn)))))
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}; nothing was changed there") from error


def _fields(each: SampledNegative) -> tuple[str, ...]:
    passage = each.verdict.judged.candidate.passage
    return each.query_id, each.passage_id, "", each.query, passage.title, passage.text, each.verdict.reason


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(query_id, passage_id) of a file that `write_sample` wrote, whatever was filled in since.

    Raises:
        MalformedInput: no such file, or not under such a header.
    """
    return [(row["query_id"], row["passage_id"]) for _, row in read_rows(path, ("query_id", "passage_id"))]


def rejudge_command(collection: str, path: Path) -> str:
    """How a stronger judge labels the sample in `path`, and nothing else."""
    return f"qrelay judge rejudge --config STRONGER.yaml --collection {collection} --pairs {shlex.quote(str(path))}"
