"""Runs the fuzzer: `make fuzz SECONDS=600`, or

python -m tests.fuzz --seconds 600                          every parser for its share of the time
python -m tests.fuzz --examples 1000 --parser envelope      so many inputs of one
python -m tests.fuzz --parser envelope --file FINDING       one input again, with its whole traceback
"""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

import click

from tests.fuzz.attempt import attempt
from tests.fuzz.parsers import PARSERS
from tests.fuzz.run import Outcome, Plan, run


@click.command(help=__doc__)
@click.option("--parser", "names", multiple=True, type=click.Choice(sorted(PARSERS)), metavar="NAME")
@click.option("--examples", default=100, show_default=True, help="inputs of a cheap parser; dear ones get fewer")
@click.option("--seconds", default=0.0, help="processor time of all parsers together, instead of --examples")
@click.option("--size-mib", default=10.0, show_default=True, help="of the largest inputs")
@click.option("--first", type=int, help="number of the first mutant; drawn with --seconds, else 0")
@click.option("--keep", type=click.Path(path_type=Path), default=Path(".fuzz"), show_default=True)
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="only this input")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a parser")
def main(
    names: tuple[str, ...],
    examples: int,
    seconds: float,
    size_mib: float,
    first: int | None,
    keep: Path,
    file: Path | None,
    as_json: bool,
) -> None:
    chosen = list(names) or list(PARSERS)
    if file:
        sys.exit(_again(chosen[0], file))
    if first is None:
        first = secrets.randbelow(1 << 32) if seconds else 0
    plan = Plan(examples, seconds / len(chosen), size_mib, first)
    failed = False
    for name in chosen:
        outcome = run(name, plan, keep)
        failed = failed or bool(outcome.findings)
        click.echo(json.dumps(asdict(outcome)) if as_json else _told(outcome))
    sys.exit(failed)


def _told(outcome: Outcome) -> str:
    figures = f"{outcome.tried:>8} inputs {outcome.seconds:>8.1f} s {len(outcome.findings):>3} findings"
    lines = [f"{outcome.parser:<46} {figures}"]
    for input_, finding in outcome.findings:
        lines.append(f"    {finding.kind} at {finding.where}")
        lines.append(f"    python -m tests.fuzz --parser '{outcome.parser}' --file '{input_}'")
    return "\n".join(lines)


def _again(name: str, file: Path) -> int:
    found = attempt(PARSERS[name], file.read_bytes())
    click.echo(f"{found.kind} at {found.where}\n{found.text}" if found else f"{name}: nothing wrong")
    return int(found is not None)


if __name__ == "__main__":
    main()
