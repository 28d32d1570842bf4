"""`qrelay models gate`: a version against what serves, by the rules; the verdict is recorded.

Exit codes: 0 passed; 1 failed to decide; 4 rejected; 78 settings, sets or models are wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.auditing import audited_act
from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_GATE, EXIT_OK
from qrelay.output import echo_json, show

if TYPE_CHECKING:
    from qrelay.training.gate.rules import GateRules
    from qrelay.training.settings import TrainerSettings


@click.command("gate", epilog=example("qrelay models gate bi-encoder-3f9a1c --promote"))
@click.argument("version", required=False)
@click.option("--rules", "rules_file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="YAML file of rules.  [default: the setting trainer.gate_rules, else trainer.gate]")  # fmt: skip
@click.option("--promote", is_flag=True, help="Let it serve if it passes.")
@click.option("--show-rules", is_flag=True, help="Print the rules in force (YAML) and end.")
@data_dir_option()
@config_option()
@json_option()
def gate_command(version: str | None, rules_file: Path | None, promote: bool, show_rules: bool, data_dir: Path,
                 config: Path | None, as_json: bool) -> None:  # fmt: skip
    """Measure VERSION against what serves now: better on the frozen set, no worse on the guard sets.

    The verdict is recorded in the registry, and `qrelay models promote` takes only what passed against the version
    that serves. Exit code 4: rejected.
    """
    from qrelay.training.settings import trainer_settings

    settings = trainer_settings(config, data_dir)
    rules = settings.rules(rules_file)
    if show_rules:
        import yaml

        found = rules.model_dump(mode="json")
        if as_json:
            echo_json(found)
        else:
            click.echo(yaml.safe_dump(found, sort_keys=False), nl=False)
        return
    if version is None:
        raise click.UsageError("name the version: `qrelay models versions` lists them; or give --show-rules")
    _gate(version, settings, rules, config, promote, as_json)


def _gate(
    version: str, settings: TrainerSettings, rules: GateRules, config: Path | None, promote: bool, as_json: bool
) -> None:
    from qrelay.models.registry import Registry
    from qrelay.models.registry.describe import full_version
    from qrelay.progress import shown
    from qrelay.training.gate.gate import gate
    from qrelay.training.gate.table import decision_table
    from qrelay.training.settings import configured_models

    registry = Registry(settings.registry_folder)
    version = full_version(registry, version)
    with shown():
        models, pair_tokens = configured_models(config, settings.data_dir)
        decision = gate(registry, version, rules, models, pair_tokens=pair_tokens, by="qrelay models gate",
                        say=lambda text: click.echo(text, err=True))  # fmt: skip
    promoted = promote and decision.passed
    if promoted:
        with audited_act(settings.data_dir, config, "promote", version) as told:
            promoted = told.did(registry.promote(version, by="qrelay models gate", reason=decision.why))
    if as_json:
        echo_json({**decision.as_json(), "promoted": promoted})
    else:
        show(decision_table(decision))
        if promoted:
            click.echo(f"{version} serves as {decision.slot}: running services take it up")
    sys.exit(EXIT_OK if decision.passed else EXIT_GATE)
