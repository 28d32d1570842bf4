"""`qrelay judge slice`: the pairs that people should grade, as a table to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qrelay.judging.qualification.sampling import Judged
    from qrelay.types import JudgedSet


@click.command("slice", epilog=example("qrelay judge slice --collection docs --n 50 --out to-grade.tsv"))
@click.option("--collection", required=True, help="The collection whose labels are sampled.")
@click.option("--n", "count", default=150, show_default=True, type=click.IntRange(1), help="Pairs to annotate.")
@click.option("--where", default="", help='Only these labels: "strategy=graded" (qrelay/labels/README.md).')
@click.option(
    "--without",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Annotated pairs that are not drawn again, from an earlier `slice`. May be repeated.",
)
@click.option("--seed", default=0, show_default=True, help="Another seed draws other pairs.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="TSV to write.")
@click.option("--sink", help="host:port of the sink.  [default: in --data-dir]")
@data_dir_option()
@config_option(used=False)
def slice_(
    collection: str,
    count: int,
    where: str,
    without: Sequence[Path],
    seed: int,
    out: Path,
    sink: str | None,
    data_dir: Path,
) -> None:
    """Draw pairs from the ledger for people to annotate: half where the judge is unsure, half over its whole range.

    Fill in the column `grade` (an integer, on one scale throughout) and give the file to `qrelay judge calibrate`
    and `qrelay judge qualify`. The judge's labels are left out, because people must not see them.
    """
    from qrelay.cli.judge import clients
    from qrelay.errors import InputError
    from qrelay.formats.annotated_pairs import read_annotated_pairs, write_annotated_pairs
    from qrelay.judging.qualification.sampling import choose
    from qrelay.rundir import require

    if out.exists():
        raise InputError(f"{out} exists, perhaps with grades in it: choose another --out")
    address = sink or require(data_dir, "sink").grpc
    drawn = {(p.query_id, p.passage_id) for path in without for p in read_annotated_pairs(path, ungraded=True)}
    sets = clients.judged_sets(data_dir, address, collection, where, "")
    judged = [each for found in sets for each in _judged(found)]
    if not judged:
        raise InputError(f"no graded judgment of collection {collection} fits --where {where!r}")
    judged = [each for each in judged if (each.pair.query_id, each.pair.passage_id) not in drawn]
    if not judged:
        raise InputError(f"every judged pair of collection {collection} is in the files of --without already")
    chosen = choose(judged, count, seed=seed)
    answers, metadata = any(pair.reference_answers for pair in chosen), any(pair.metadata for pair in chosen)
    write_annotated_pairs(out, chosen, answers=answers, metadata=metadata)
    queries = len({pair.query_id for pair in chosen})
    click.echo(f"{out}: {len(chosen)} pairs of {queries} queries to grade, of {len(judged)} judged")


def _judged(found: JudgedSet) -> Iterator[Judged]:
    """The pairs of one set that have a grade; of several labels of a pair the last, which combines the others."""
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.judging.qualification.sampling import Judged
    from qrelay.types import Graded

    query = found.candidate_set.query
    labels = {each.passage_id: each.outcome for each in found.judgments if isinstance(each.outcome, Graded)}
    for candidate in found.candidate_set.candidates:
        passage, outcome = candidate.passage, labels.get(candidate.passage.passage_id)
        if candidate.sampled and outcome is not None:
            pair = GradedPair(
                query.query_id, passage.passage_id, None, query.text, passage.title, passage.text,
                tuple(query.reference_answers), passage.metadata,
            )  # fmt: skip
            yield Judged(pair, outcome.p_relevant, outcome.entropy)
