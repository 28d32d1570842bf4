"""`qrelay judge calibrate`: maps to P(relevant) from grades, and from other collections where grades are few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.judge.measure import (
    fusions_of,
    measured_table,
    print_figures,
    print_verdicts,
    systems_options,
    write_figures,
    write_verdicts,
)
from qrelay.cli.judge.pairs import FILE
from qrelay.cli.options import config_option

if TYPE_CHECKING:
    from qrelay.judging.calibration import CalibrationMap
    from qrelay.judging.qualification.table import Table


@click.command(
    "calibrate", epilog=example("qrelay judge calibrate --slice graded.tsv --relevant-from 2 --out maps.json")
)
@systems_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File for the maps.")
@click.option(
    "--prior",
    "priors",
    multiple=True,
    type=FILE,
    help="Maps of another collection, from `calibrate` there: few grades then suffice, or none. May be repeated.",
)
@click.option(
    "--qualification",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for verdicts on these maps, cross-validated by query; for sink.qualification.",
)
@click.option("--default", help="The map that judge.calibration uses when it names none.  [default: the best one]")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for HTML, PNG and JSON.")
@config_option()
def calibrate(
    out: Path,
    priors: Sequence[Path],
    qualification: Path | None,
    default: str | None,
    report: Path | None,
    config: Path | None,
    **options: Any,
) -> None:
    """Fit a map to P(relevant) for every judge, retrieval score and ensemble, on annotated pairs.

    The file holds all maps; `judge.calibration: FILE#NAME` chooses one. Figures are cross-validated by query. With
    --prior a map begins as that of another collection and moves with each graded pair.
    """
    from qrelay.judging.calibration import load_maps
    from qrelay.judging.qualification.fitting import domain_of, fit_map
    from qrelay.judging.qualification.systems import evaluate, fitted_on_all
    from qrelay.reports import require_libraries

    if len(options["embedders"]) > 1:
        raise click.UsageError(
            "a map reads one dense score, the retriever's: name one --embedder here, and make any other a judge "
            "(judge.judges, backend: embedder); `eval` compares several"
        )
    require_libraries(report)
    known = [load_maps(path) for path in priors]
    table, fusions = measured_table(config, options), fusions_of(options)
    before = _priors(table, fusions, known, priors)
    if known and not len(table.graded):
        if qualification:
            raise click.UsageError("--qualification needs graded pairs: without any no map can be measured")
        _as_they_are(table, before, out, default)
        return
    evaluation = evaluate(table, fusions, priors=known)
    if left_out := before.keys() - evaluation.systems.keys():
        click.echo(
            f"left out, as no prior is of them and {len(table.graded)} graded pairs are too few to do without: "
            f"{', '.join(sorted(left_out))}",
            err=True,
        )
    maps = {
        name: fit_map(
            table, system.inputs, table.graded, system.metrics, before[name], domain_of(table, system.inputs)
        )
        for name, system in evaluation.systems.items()
    }
    chosen = default or max(
        (name for name in maps if name not in table.stages), key=lambda name: evaluation.systems[name].metrics["auc"]
    )
    _save(maps, chosen, out)
    print_figures(evaluation)
    click.echo(f"{out}: {len(maps)} maps, {chosen} by default; set judge.calibration to it")
    _say(table, maps[chosen], [name for name, found in before.items() if found])
    of_maps = fitted_on_all(evaluation, maps)
    if qualification:
        print_verdicts(write_verdicts(of_maps, qualification, rest=bool(options["rest"])))
    if report:
        write_figures(of_maps, report, chosen)


def _priors(
    table: Table,
    fusions: Mapping[str, Sequence[str]],
    known: Sequence[Mapping[str, CalibrationMap]],
    paths: Sequence[Path],
) -> dict[str, list[CalibrationMap]]:
    """Each system's priors. Raises UsageError: not one map of the files reads what a judge here reads, and means the
    same by relevant."""
    from qrelay.judging.qualification.systems import priors_of, recipes

    inputs = recipes(table, fusions)
    found = {name: priors_of(table, names, known) for name, names in inputs.items()}
    if known and not any(found[name] for name in found if name not in table.stages):
        read = [table.inputs(names) for names in inputs.values()]
        other = sorted(
            {each.fitted_on.relevant_from for maps in known for each in maps.values() if each.inputs in read}
        )
        if other:
            raise click.UsageError(
                f"relevant begins at another grade in {', '.join(map(str, paths))} "
                f"({', '.join(map(str, other))}) than here ({table.relevant_from}), or on another scale: give "
                "--relevant-from as it was there, or calibrate the other collection with this one"
            )
        raise click.UsageError(
            f"no map of {', '.join(map(str, paths))} is of the judges and scores here: model, prompt, scale and "
            "decoding must be the same; label and calibrate the other collection with these judges"
        )
    return found


def _as_they_are(
    table: Table, before: Mapping[str, Sequence[CalibrationMap]], out: Path, default: str | None
) -> None:
    """The maps of the first prior that has each: nobody graded anything here."""
    from qrelay.judging.qualification.systems import like

    maps = {name: found[0] for name, found in before.items() if found}
    chosen = default or max(maps, key=lambda name: len(maps[name].inputs))
    _save(maps, chosen, out)
    fitted, found = maps[chosen].fitted_on, like(maps[chosen], table)
    click.echo(
        f"{out}: no pair is graded, so these are {len(maps)} maps of another collection as they are, {chosen} by "
        f"default (fitted on {fitted.pairs} pairs of {fitted.queries} queries of "
        f"{maps[chosen].domain.collection or 'a collection that it does not name'})"
    )
    click.echo(f"domain: {found or 'too few queries with 5 judged passages to compare'}")


def _save(maps: Mapping[str, CalibrationMap], chosen: str, out: Path) -> None:
    from qrelay.judging.calibration import save_maps

    if chosen not in maps:
        raise click.UsageError(f"--default {chosen}: there are {', '.join(maps)}")
    save_maps(maps, chosen, out)


def _say(table: Table, chosen: CalibrationMap, moved: Sequence[str]) -> None:
    """What a reader must know of these maps."""
    if moved:
        click.echo(f"moved by {len(table.graded)} graded pairs from maps of other collections: {', '.join(moved)}")
    if not chosen.domain.known:
        click.echo(
            "the maps cannot tell other domains from this one: that takes 10 queries with 5 judged passages each, "
            "graded or not (--rest)"
        )
