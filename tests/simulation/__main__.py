"""`python -m tests.simulation`: what is wrong, with the command that replays it; one JSON object in the last line."""

from __future__ import annotations

import json
import sys
import time

import click

from tests.simulation.hostile import KINDS
from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import run_seed, run_seeds


@click.command()
@click.option("--seeds", default=1000, show_default=True, help="How many seeds.")
@click.option("--start", default=1, show_default=True, help="The first.")
@click.option("--seed", type=int, help="Only this seed.")
@click.option("-v", "--verbose", is_flag=True, help="With --seed: the plan, and every event.")
@click.option("--odd", type=click.Choice([*KINDS]), default=None, help="Draw every odd message of this kind.")
@click.option("--mutation", type=click.Choice([*MUTATIONS]), default=None, help="Put this fault back.")
@click.option("--stop-at", default=0, help="End after so many seeds with findings; 0: never.")
def main(
    seeds: int, start: int, seed: int | None, verbose: bool, odd: str | None, mutation: str | None, stop_at: int
) -> None:
    """Simulate the pipeline; exit code 1 when something is wrong."""
    parts = MUTATIONS[mutation].parts() if mutation else None
    if seed is not None and verbose:
        outcome = run_seed(seed, odd=odd or "", parts=parts, say=click.echo)
        click.echo("\n".join(outcome.findings) or "sound")
        sys.exit(bool(outcome.findings))
    wanted = [seed] if seed is not None else range(start, start + seeds)
    choices = "".join(f" --{name} {value}" for name, value in (("odd", odd), ("mutation", mutation)) if value)
    began, done, wrong, queries, dead, slowest = time.monotonic(), 0, 0, 0, 0, 0.0
    for outcome in run_seeds(wanted, odd=odd or "", parts=parts):
        done, queries, dead = done + 1, queries + outcome.queries, dead + outcome.dead
        slowest = max(slowest, outcome.settled_s)
        if outcome.findings:
            wrong += 1
            click.echo(f"WRONG python -m tests.simulation --seed {outcome.seed}{choices} -v")
            for finding in outcome.findings:
                click.echo(f"      {finding}")
            if wrong == stop_at:
                break
    seconds = time.monotonic() - began
    summary = {
        "seeds": done,
        "queries": queries,
        "dead_letters": dead,
        "wrong": wrong,
        "slowest_settling_s": round(slowest),
        "seconds": round(seconds),
        "seeds_per_minute": round(60 * done / seconds),
    }
    click.echo(json.dumps(summary))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
