"""What a map fitted on one collection is worth on another: the second table of `make judge-table`.

Each map is fitted on all pairs of one collection and applied to all of another; beside it stands the map that was
fitted on the collection itself, cross-validated by query, to which it is compared (`qrelay.judging.domain` says how
like the queries are). Grades may be on other scales: what transfers is P(relevant).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.public import cell
from qrelay.bench.table import Grid, markdown_lines
from qrelay.judging.qualification.fitting import Predictions, apply_map, cross_validated, domain_of, fit_map
from qrelay.judging.qualification.systems import like
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import auc, kappa
from qrelay.stats.calibration import ece
from qrelay.stats.intervals import paired_bootstrap

RESAMPLES: Final = 1000


def transferred(tables: Mapping[str, Table], recipes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A record a recipe and pair of collections that have its labels, in order."""
    found = []
    for name, inputs in recipes.items():
        able = {each: table for each, table in tables.items() if _has(table, inputs)}
        for measured_on, table in able.items():
            own = cross_validated(table, inputs)
            found.append(_record(name, measured_on, measured_on, table, own))
            for fitted_on, other in able.items():
                if fitted_on != measured_on:
                    fitted = fit_map(other, inputs, other.graded, domain=domain_of(other, inputs))
                    said, alike = apply_map(fitted, table), like(fitted, table)
                    record = _record(name, fitted_on, measured_on, table, said)
                    record |= {"against_own": _against(table, said, own), "domain_p": alike.p if alike else None}
                    found.append(record)
    return found


def of_others(records: Sequence[dict[str, Any]], measured: Collection[str]) -> list[dict[str, Any]]:
    """Records of an earlier run that name a collection beside the measured ones: they stay."""
    return [each for each in records if not {each["fitted_on"], each["measured_on"]} <= {*measured}]


def _has(table: Table, inputs: Sequence[str]) -> bool:
    bases = {each.removesuffix("/best") for each in inputs}
    return bases <= {*table.labels, *table.stages}


def _record(name: str, fitted_on: str, measured_on: str, table: Table, said: Predictions) -> dict[str, Any]:
    rows = table.graded[~np.isnan(said.p[table.graded])]
    y = table.relevant[rows]
    return {
        "system": name,
        "fitted_on": fitted_on,
        "measured_on": measured_on,
        "auc": auc(y, said.ranking[rows]),
        "kappa_binary": kappa(y, said.relevant[rows]),
        "ece": ece(y, said.p[rows]),
    }


def _against(table: Table, said: Predictions, own: Predictions) -> dict[str, Any]:
    """The other collection's map less this one's, paired by query; p one-sided, of the former being no better."""
    rows = table.graded[~np.isnan(said.p[table.graded]) & ~np.isnan(own.p[table.graded])]
    y, queries = table.relevant[rows], table.queries[rows]

    def test(statistic: Any, one: NDArray[Any], other: NDArray[Any]) -> dict[str, Any]:
        found = paired_bootstrap(
            lambda drawn: statistic(y[drawn], one[rows][drawn]),
            lambda drawn: statistic(y[drawn], other[rows][drawn]),
            queries,
            n=RESAMPLES,
        )
        return {"difference": found.difference, "ci": [found.low, found.high], "p": found.p_value}

    return {"auc": test(auc, said.ranking, own.ranking), "kappa_binary": test(kappa, said.relevant, own.relevant)}


def markdown(records: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """The table: a row a system and collection that its map was fitted on, two columns a collection measured on."""
    measured_on = list(dict.fromkeys(each["measured_on"] for each in records))
    if not measured_on:
        return "Not measured yet: no collection has labels of a judge here."
    head = ["system", "fitted on", *(f"on {titles.get(each, each)}: AUC, kappa, ECE" for each in measured_on)]
    rows = []
    for system in dict.fromkeys(each["system"] for each in records):
        for fitted_on in dict.fromkeys(each["fitted_on"] for each in records if each["system"] == system):
            mine = [each for each in records if (each["system"], each["fitted_on"]) == (system, fitted_on)]
            by_place = {each["measured_on"]: each for each in mine}
            cells = [" ".join(_cell(by_place.get(place))) for place in measured_on]
            rows.append([system, titles.get(fitted_on, fitted_on), *cells])
    return "\n".join(markdown_lines(Grid("", head, rows)))


def _cell(record: Mapping[str, Any] | None) -> Iterator[str]:
    if record is None:
        return
    yield f"{record['auc']:.3f}, {record['kappa_binary']:.3f}, {record['ece']:.3f}"
    if "against_own" not in record:
        yield "(own, cross-validated)"
        return
    against = record["against_own"]
    for name, figure in (("AUC", "auc"), ("kappa", "kappa_binary")):
        low, high = against[figure]["ci"]
        if low is not None and high is not None:
            yield f"{name} {cell(against[figure]['difference'], (low, high), '+')}"
    if record["domain_p"] is not None:
        yield f"domain p {record['domain_p']:.1g}"
