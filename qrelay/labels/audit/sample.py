"""`qrelay audit sample`: negatives for a second, stronger judgment, as a file that people and commands can take.

The file is a slice as `qrelay judge` reads and writes them: TSV in UTF-8 under the header query_id, passage_id, grade
(empty: to be filled in), query, title, text; then reason, the mining rule that chose the negative. What the first
judge said is not in it, for a grader must not see it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from qrelay.errors import BackendUnavailable, InputError, MalformedInput
from qrelay.files import write_atomic
from qrelay.labels.audit.audit import Request, who_is_who
from qrelay.labels.audit.false_negatives import FalseNegatives, SampledNegative
from qrelay.labels.audit.judges import Judges
from qrelay.labels.examples import examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules

COLUMNS: Final = ("query_id", "passage_id", "grade", "query", "title", "text", "reason")
_BREAKS: Final = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


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
    lines = ["\t".join(COLUMNS), *("\t".join(_BREAKS.sub(" ", field) for field in _fields(each)) for each in drawn)]
    try:
        write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "replace"))
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
    try:
        header, *rows = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} cannot be read ({error}): give a file of `qrelay audit sample`") from error
    columns = header.rstrip("\r").split("\t")
    if not {"query_id", "passage_id"} <= set(columns):
        raise MalformedInput(f"{path}:1: no columns query_id and passage_id: give a file of `qrelay audit sample`")
    return list(_pairs(path, columns, rows))


def _pairs(path: Path, columns: Sequence[str], rows: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows, 2):
        if not row.strip():
            continue
        fields = row.rstrip("\r").split("\t")
        if len(fields) != len(columns):
            raise MalformedInput(f"{path}:{number}: {len(fields)} fields for {len(columns)} columns")
        yield fields[columns.index("query_id")], fields[columns.index("passage_id")]


def rejudge_command(collection: str, path: Path) -> str:
    """How a stronger judge labels the sample in `path`, and nothing else."""
    return f"qrelay judge rejudge --config STRONGER.yaml --collection {collection} --pairs {shlex.quote(str(path))}"
