"""`qrelay bench sizing REPORT…`: machines, hours and cost for so many queries, from what was measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from qrelay.cli.group import example
from qrelay.cli.options import json_option
from qrelay.output import echo_json


class _ByService(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    name = "service=number,…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        """`judge=0.60,sink=0.05` as numbers by service."""
        if isinstance(value, dict):
            return value
        try:
            pairs = [part.split("=") for part in str(value).split(",")]
            return {service.strip(): float(number) for service, number in pairs}
        except ValueError:
            self.fail(
                f"{value!r}: write service=number with commas between, such as judge=0.60,sink=0.05", param, ctx
            )


@click.command(epilog=example("qrelay bench sizing bench-judge bench-retriever --queries 1000000 --hours 24"))
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--queries", type=click.IntRange(1), default=1_000_000, show_default=True, help="Number of queries.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="Hours in which to label them.")
@click.option("--utilisation", type=float, default=0.7, show_default=True,
              help="Share of the measured throughput to plan for.")  # fmt: skip
@click.option("--price", type=_ByService(), default=None, help="Price of one machine-hour: judge=0.60,sink=0.05.")
@click.option("--weight", type=_ByService(), default=None,
              help="What a query costs in items of the report: judge=5 where it was measured with 5 passages a set "
              "and a query has 25.")  # fmt: skip
@json_option()
def sizing(reports: tuple[Path, ...], queries: int, hours: float, utilisation: float,
           price: dict[str, float] | None, weight: dict[str, float] | None, as_json: bool) -> None:  # fmt: skip
    """Compute how many replicas of each service a number of queries needs, and what they cost.

    REPORTS come from `qrelay bench retriever`, reranker, judge and sink, on the kind of machine that you will use.
    """
    from qrelay.bench.report import read
    from qrelay.bench.sizing import Plan, markdown, size

    plan = Plan(queries, hours, utilisation, price, weight)
    needs = size([read(path) for path in reports], plan)
    if as_json:
        echo_json({"services": [asdict(need) for need in needs]})
        return
    click.echo(markdown(needs, plan))
