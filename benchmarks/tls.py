"""What certificates on every connection cost the pipeline with fakes.

    python -m benchmarks.tls [--queries 3000] [--turns 5] [--json]

Each turn is `benchmarks.pipeline` twice, in processes of its own: in plain text, and with mutual TLS between
services, NATS and whoever feeds. Every other turn begins with the other one, because a machine changes while it
measures. The figure is the rate with certificates divided by the rate without, of each turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.references.turns import order_of


def measured(queries: int, secure: bool) -> dict[str, Any]:
    """One run. Raises CalledProcessError: it failed; what it said is on standard error."""
    command = [sys.executable, "-m", "benchmarks.pipeline", "--alone", "--queries", str(queries)]
    done = subprocess.run(
        [*command, *(["--secure"] if secure else [])], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def turn(queries: int, number: int) -> dict[str, Any]:
    """Both runs: queries/s and CPU-ms a query of all processes together, and the ratio of the rates."""
    found: dict[str, Any] = {}
    for kind in order_of(("plain", "secure"), number):
        run = measured(queries, kind == "secure")
        cpu = sum(run["pipeline"]["cpu_ms_per_query"].values())
        found[kind] = {"queries_per_second": run["pipeline"]["queries_per_second"], "cpu_ms_per_query": cpu}
        found["environment"] = run["environment"]
    return {**found, "ratio": found["secure"]["queries_per_second"] / found["plain"]["queries_per_second"]}


def described(report: dict[str, Any]) -> str:
    """The report as text."""
    rows = [
        f"  {row['plain']['queries_per_second']:7.1f} plain  {row['secure']['queries_per_second']:7.1f} with TLS  "
        f"ratio {row['ratio']:.3f}   CPU {row['plain']['cpu_ms_per_query']:.2f} and "
        f"{row['secure']['cpu_ms_per_query']:.2f} ms a query"
        for row in report["turns"]
    ]
    low, high = report["ratio_range"]
    return "\n".join(
        [f"queries/s, {report['queries']} queries a run", *rows,
         f"ratio of a turn: median {report['ratio']:.3f}, from {low:.3f} to {high:.3f}"]
    )  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    turns = [turn(arguments.queries, number) for number in range(1, arguments.turns + 1)]
    ratios = [row["ratio"] for row in turns]
    report = {
        "queries": arguments.queries, "turns": turns, "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }  # fmt: skip
    print(json.dumps(report, indent=2) if arguments.json else described(report))


if __name__ == "__main__":
    main()
