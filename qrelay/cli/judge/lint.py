"""`qrelay judge lint`: what of a rubric breaks the hygiene of prompts, or leaves the model guessing."""

from __future__ import annotations

from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import json_option
from qrelay.exitcodes import EXIT_GATE
from qrelay.output import echo_json


@click.command("lint", epilog=example("qrelay judge lint helpdesk.yaml"))
@click.argument("rubric", metavar="RUBRIC")
@json_option()
def lint(rubric: str, as_json: bool) -> None:
    """Check a rubric: a YAML file, or the name of a shipped one.

    Says where a passage could be obeyed (no delimiter, nothing after it, no query after it) and where the model is
    left guessing (grades without a meaning, an answer that is not said). Exit code 4 where there is a warning; a
    rubric that cannot be used at all is an error.
    """
    found = _linted(rubric)
    if as_json:
        echo_json(found)
    else:
        for warning in found["warnings"]:
            click.echo(f"{rubric}: warning: {warning}")
        click.echo(
            f"{rubric}: {found['strategy']}, scale {found['scale']}, relevant from {found['relevant_from']}, prompt "
            f"{found['prompt_hash'][:12]}; {len(found['warnings'])} warnings"
        )
    if found["warnings"]:
        raise SystemExit(EXIT_GATE)


def _linted(source: str) -> dict[str, Any]:
    from qrelay.judging.strategies import make_strategy
    from qrelay.judging.strategies.lint import warnings
    from qrelay.judging.strategies.rubric import Rubric, load_rubric

    rubric = load_rubric(source)
    spec = make_strategy("", "", rubric=source).spec
    return {
        "strategy": spec.name,
        "scale": spec.scale.name,
        "relevant_from": spec.scale.relevant_grade,
        "prompt_hash": spec.prompt_hash,
        "warnings": warnings(rubric) if isinstance(rubric, Rubric) else [],
    }
