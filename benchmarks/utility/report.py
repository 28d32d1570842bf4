"""What the steps wrote to WORK, as the tables of docs/judge.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.public import cell, difference
from benchmarks.utility.grid import CROSSED, DEV, TRANSFER
from qrelay.bench.table import Grid, markdown_lines

SHOWN: Final = {DEV: "RR@5", TRANSFER: "nDCG@10", CROSSED: "nDCG@10"}
FIGURES: Final = ("gain", "f1", "em", "grade")
_Rows = Iterator[Sequence[str]]
"""The first is the head."""


def tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A table a step that was done. found: step -> what it wrote."""
    for step, table in STEPS.items():
        if step in found:
            head, *rows = table(found[step])
            yield "\n".join(markdown_lines(Grid("", head, rows)))


def _agreement(found: Mapping[str, Any]) -> _Rows:
    yield ["", "AUC (95 %)", "within", "kappa binary (95 %)"]
    for name, each in found.items():
        counted = f"{each['questions']} questions, {each['pairs']} pairs, {each['relevant']} relevant"
        yield [f"**{name}**: {counted}", "", "", ""]
        for system, row in each["systems"].items():
            yield [
                system,
                cell(row["auc"], row["auc_ci"]),
                cell(row["auc_within_query"]),
                cell(row["kappa_binary"], row.get("kappa_binary_ci")),
            ]
        for pair, tests in each["differences"].items():
            told = [difference(*each) for each in tests.values()]
            yield [pair, *told, ""]


def _training(found: Mapping[str, Any]) -> _Rows:
    yield from _results(found["results"])


def _results(found: Mapping[str, Any]) -> _Rows:
    yield ["labels, loss", *(f"{where}, {SHOWN[where]}" for where in found)]
    any_place = next(iter(found.values()))
    first = [
        next(iter(next(iter(each.values())).values()))["less base"][SHOWN[where]] for where, each in found.items()
    ]
    yield ["untrained", *(cell(each["old"]) for each in first)]
    for loss, kinds in any_place.items():
        for kind in kinds:
            cells = [found[where][loss][kind]["less base"][SHOWN[where]] for where in found]
            yield [f"{kind}, {loss}", *(f"{each['new']:.3f}: {_test(each)}" for each in cells)]
        cells = [found[where][loss]["answer"]["less query"][SHOWN[where]] for where in found if "answer" in kinds]
        yield [f"answer less query, {loss}", *map(_test, cells)]


def _answers(found: Mapping[str, Any]) -> _Rows:
    yield [f"{found['questions']} questions, {found['readings']} answers", *FIGURES]
    for name, each in found["systems"].items():
        yield [name, *(cell(each["means"].get(figure)) for figure in FIGURES)]
    for name, each in found["systems"].items():
        for against in ("less base", "less query"):
            tests = {test["measure"]: test for test in each.get(against, ())}
            cells = [_test({**tests[key], "p": tests[key]["p_fisher"]}) if key in tests else "" for key in FIGURES]
            yield from [[f"{name} {against}", *cells]] if tests else []


def _test(test: Mapping[str, Any]) -> str:
    return difference(test["difference"], test["low"], test["high"], test["p"])


STEPS: Final = {
    "agree": _agreement,
    "train": _training,
    "whole": _results,
    "likelihood": _answers,
    "answers": _answers,
}
