"""What an installation can carry, and what so many queries a second need.

    python -m benchmarks.capacity check [--short] [--out FOLDER]    # the model beside the pipeline, 1 to 8 judges
    python -m benchmarks.capacity plan [--rate 1000] [--gpu FILE] [--page docs/capacity.md]

`check` takes about 15 minutes, `--short` 3; each run of it that is done is kept in FOLDER, so the same command goes
on where it was stopped; its figures go to FOLDER/capacity.json, and come into the page from docs/benchmarks. `plan`
computes from the reports there, and with --gpu from what `python -m benchmarks.gpu` found.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.capacity import check
from benchmarks.capacity.stations import (
    Station,
    bytes_a_query,
    nats_of,
    need,
    network,
    of_report,
    passage,
)
from qrelay.bench.environment import environment, summary
from qrelay.bench.report import Report, read
from qrelay.bench.table import Grid, markdown_lines, number

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
FIGURES = "capacity.json"
COUNTS, SHORT_COUNTS = (1, 2, 4, 8), (1, 2)
JUDGED, MEASURED, PAIRS = 25, 5, 100
"""Passages of a query that are judged, those of a set in the judge's report, pairs of the reranker."""
MACHINE_HOUR, GPU_HOUR, WAIT_S, COPIES, LINK_GBIT = 0.10, 2.50, 1.0, 3, 10.0
"""Hours of a two-core machine and a GPU, in any currency (assumptions); what 99% wait at most at a stage; copies of a
stream; a link."""
REPLICAS = "replicas"
SINK_MOVES = "partitions of a collection, a sink each"
POSTGRES_MOVES = "partitions in databases of their own"


def stations(reports: dict[str, Report], references: dict[str, Any], gpu: dict[str, float]) -> list[Station]:
    """All that a query passes. gpu: pairs a second of one GPU, of `cross_encoder` and `judge`; empty: processors."""
    cores = float(reports["pipeline"].environment.get("cores_usable") or 1)
    database = next(each for each in references["comparisons"] if each["details"].get("database") == "postgresql")
    if gpu:
        models = [Station("reranker (GPU)", PAIRS / gpu["cross_encoder"], 0.1, GPU_HOUR),
                  Station("judge (GPU)", JUDGED / gpu["judge"], 0.1, GPU_HOUR)]  # fmt: skip
    else:
        judge = of_report(reports["judge-transformers"], JUDGED / MEASURED)
        models = [replace(of_report(reports["reranker"]), price=MACHINE_HOUR),
                  replace(judge, name="judge (0.5B)", price=MACHINE_HOUR)]  # fmt: skip
    return [
        replace(of_report(reports["retriever-32"]), price=MACHINE_HOUR),
        *models,
        Station("sink", 1 / database["service_rate"], 1.0, MACHINE_HOUR, SINK_MOVES),
        Station("PostgreSQL", 1 / database["library_rate"], 1.0, MACHINE_HOUR, POSTGRES_MOVES, spare=0),
        replace(nats_of(reports["pipeline"], cores, COPIES), price=MACHINE_HOUR),
    ]


def section(title: str, parts: Sequence[Station], rate: float, wait_s: float) -> Iterator[str]:
    """What each station needs, as markdown: the table, the walls, the latency."""
    needs = [need(each, rate, wait_s) for each in parts]
    header = ("part", "one carries, queries/s", "servers", "load", "wait p99, s", "an hour", "more by")
    table = [
        (each.station.name, number(each.alone), f"{each.servers:,}", f"{each.load:.0%}",
         number(each.wait.quantile(0.99)), number(each.cost_hour), each.station.moves)
        for each in needs
    ]  # fmt: skip
    yield from ("", f"## {title}", "", *markdown_lines(Grid("", header, table)), "")
    hour = sum(each.cost_hour for each in needs)
    yield (
        f"{rate:,g} queries/s: {sum(each.servers for each in needs):,} servers, {number(hour)} an hour, "
        f"{number(1e6 * hour / 3600 / rate)} a million queries."
    )
    half, most = (number(passage(needs, q)) for q in (0.5, 0.99))
    yield f"A query takes {half} s at the median and {most} s at the 99th percentile, without what batching adds."
    yield ""
    walls = sorted((each for each in needs if each.station.moves != REPLICAS), key=lambda each: each.alone)
    yield "Walls, in the order in which they are met (what is not moved by one more replica):"
    yield ""
    for each in walls:
        yield f"- {each.station.name}, {number(each.alone)} queries/s: {each.station.moves}."
    link = LINK_GBIT / network(1.0, COPIES)[0]
    yield f"- A NATS server's link of {LINK_GBIT:g} Gbit/s, {number(link)} queries/s: queues on servers of their own."


def traffic(rate: float) -> Iterator[str]:
    """Bytes of a query, and what they make."""
    sizes = bytes_a_query()
    services, servers = network(rate, COPIES)
    yield from ("", "## Network", "")
    sized = ", ".join(f"{queue.value} {size / 1024:.1f} KiB" for queue, size in sizes.items())
    yield f"A query's messages, compressed: {sized}."
    yield f"At {rate:,g} queries/s {services:.2f} Gbit/s go in and out of NATS, and {servers:.2f} Gbit/s between"
    yield f"servers that keep {COPIES} copies."


def checked(found: dict[str, Any]) -> Iterator[str]:
    """The model beside what was measured."""
    header = ("judges", "load", "unit", "measured", "model", "measured / model")
    rows = [(str(r["replicas"]), r["load"], r["unit"], number(r["measured"]), number(r["model"]), f"{r['ratio']:.2f}")
            for r in found["rows"]]  # fmt: skip
    yield from ("", "## The model beside the pipeline", "")
    yield "Sleeping services, `python -m benchmarks.capacity check`; closed loops: throughput by mean value analysis;"
    yield "open loops: mean latency, of which the time of a lone query is measured and the waiting is Kimura's M/G/k."
    yield from ("", *markdown_lines(Grid("", header, rows)), "", f"Machine: {summary(found['environment'])}.")


HEAD = """# Capacity

Generated by `python -m benchmarks.capacity plan --page docs/capacity.md` from the reports of
[benchmarks.md](benchmarks.md). Stages are stations with several servers; arrivals are Poisson, service times as
measured. Servers are the fewest with which 99 % of the queries wait at most {wait:g} s at each stage, and which keep
up when one is lost. Waiting is Kimura's M/G/k (1986), which lies between Erlang's M/M/k and Cosmetatos' M/D/k.

A server is one two-core machine of the reports at {machine:.2f} an hour, a GPU {gpu:.2f}, which are assumptions.
NATS keeps {copies} copies of each message, and each is taken to cost a server what the first one does. PostgreSQL is
taken at the rate of the bare driver's INSERT; the sink writes by COPY, which costs it about two thirds of that.
[operations.md](operations.md#sizing) has machine-hours for a number of queries."""


def page(rate: float, wait_s: float, gpu: dict[str, float]) -> str:
    """All of it."""
    reports = {path.parent.name: read(path) for path in REPORTS.glob("*/report.json")}
    references = json.loads((REPORTS / "references.json").read_text("utf8"))
    lines = [HEAD.format(wait=wait_s, machine=MACHINE_HOUR, gpu=GPU_HOUR, copies=COPIES)]
    lines += section(f"{rate:,g} queries/s on processors", stations(reports, references, {}), rate, wait_s)
    if gpu:
        title = f"{rate:,g} queries/s, reranker and judge on GPUs"
        lines += section(title, stations(reports, references, gpu), rate, wait_s)
    lines += traffic(rate)
    if (figures := REPORTS / FIGURES).exists():
        lines += checked(json.loads(figures.read_text("utf8")))
    return "\n".join(lines) + "\n"


def gpu_rates(path: Path | None) -> dict[str, float]:
    """Pairs a second of `cross_encoder` and `judge` in a report of benchmarks.gpu."""
    if path is None:
        return {}
    found = {row["what"]: row["ours"] for row in json.loads(path.read_text("utf8"))["rows"]}
    if missing := {"cross_encoder", "judge"} - found.keys():
        raise SystemExit(
            f"{path} has no figure of {', '.join(sorted(missing))}: run `python -m benchmarks.gpu` whole"
        )
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "check"])
    parser.add_argument("--rate", type=float, default=1000.0, help="queries a second")
    parser.add_argument("--wait", type=float, default=WAIT_S, help="what 99%% wait at most at one stage, seconds")
    parser.add_argument("--gpu", type=Path, help="report of `python -m benchmarks.gpu`")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--short", action="store_true", help="1 and 2 judges, short windows")
    parser.add_argument("--out", type=Path, default=Path("build/capacity"))
    arguments = parser.parse_args()
    if arguments.command == "plan":
        text = page(arguments.rate, arguments.wait, gpu_rates(arguments.gpu))
        arguments.page.write_text(text, "utf8") if arguments.page else print(text)
        return
    folder: Path = (arguments.out / ("short" if arguments.short else "whole")).resolve()
    counts, options = (SHORT_COUNTS, ["--quick"]) if arguments.short else (COUNTS, [])
    rows = [row for row in check.rows(folder, counts, options) if math.isfinite(row.model)]
    found = {"environment": environment(), "rows": check.as_json(rows)}
    (folder / FIGURES).write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(checked(found)))


if __name__ == "__main__":
    main()
