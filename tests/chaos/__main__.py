"""`python -m tests.chaos`: seeds one after another; a table, and one JSON object in the last line."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos import material, report, training
from tests.chaos.database import Postgres, small_disk
from tests.chaos.faults import kinds_for, left_out
from tests.chaos.run import Outcome, Setting, run_seed, undisturbed
from tests.chaos.schedule import draw

LEDGERS = ("sqlite", "postgresql")


def ledger_of(seed: int, ledger: str) -> str:
    """With both, odd seeds keep theirs in SQLite and even ones in PostgreSQL."""
    return LEDGERS[(seed + 1) % 2] if ledger == "both" else ledger


@click.command()
@click.option("--seeds", default=20, show_default=True, help="How many seeds, from 1.")
@click.option("--seed", type=int, help="Only this seed.")
@click.option("--queries", default=300, show_default=True, help="Queries of a seed.")
@click.option("--steps", default=11, show_default=True, help="Faults of a seed.")
@click.option("--ledger", type=click.Choice([*LEDGERS, "both"]), default="both", show_default=True)
@click.option("--keep", is_flag=True, help="Keep the folder also when all is well.")
def main(seeds: int, seed: int | None, queries: int, steps: int, ledger: str, keep: bool) -> None:
    """Break a real installation on purpose and classify every query; exit code 1 when something is wrong."""
    wanted = [seed] if seed is not None else list(range(1, seeds + 1))
    folder = Path(tempfile.mkdtemp(prefix="qrelay-chaos-"))
    outcomes, out = run(folder, wanted, queries, steps, ledger)
    found = report.problems(outcomes, training=training.available())
    for problem in found:
        click.echo(f"WRONG {problem}")
    if found or keep:
        click.echo(f"everything is in {folder}")
    else:
        shutil.rmtree(folder)
    click.echo(json.dumps(report.last_line(outcomes, queries, out, found)))
    sys.exit(1 if found else 0)


def run(
    folder: Path, seeds: list[int], queries: int, steps: int, ledger: str
) -> tuple[list[Outcome], dict[str, str]]:
    """Run the seeds; their outcomes, and the faults that could not be drawn with the reason."""
    ledgers = {seed: ledger_of(seed, ledger) for seed in seeds}
    with small_disk(folder / "probe") as disk:
        out = left_out(disk=disk, ledgers=set(ledgers.values()))
    for kind, reason in out.items():
        click.echo(f"left out: {kind}: {reason}")
    environ, asked = material.prepare(folder / "material"), material.queries(queries)
    expected = undisturbed(folder / "undisturbed", environ, asked)
    click.echo(f"undisturbed: {', '.join(f'{kind} {len(data)} bytes' for kind, data in expected.items())}")
    postgres = Postgres(folder / "postgres") if "postgresql" in ledgers.values() else None
    setting = Setting(folder, environ, asked, expected, postgres, click.echo)
    outcomes = []
    try:
        for seed in seeds:
            schedule = draw(seed, kinds_for(ledgers[seed], out), steps)
            click.echo(f"seed {seed} ({ledgers[seed]}): {' '.join(map(str, schedule))}")
            outcomes.append(run_seed(setting, seed, ledgers[seed], schedule))
            click.echo(
                f"{report.HEAD}\n{report.row(outcomes[-1])}" if len(outcomes) == 1 else report.row(outcomes[-1])
            )
    finally:
        if postgres:
            postgres.close()
    return outcomes, out


if __name__ == "__main__":
    main()
