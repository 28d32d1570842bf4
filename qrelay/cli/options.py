"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from qrelay.rundir import DATA_DIR_VARIABLE, default_data_dir

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def data_dir_option() -> Decorator:
    """--data-dir: the folder of this installation's state."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_data_dir,
        show_default=".qrelay",
        envvar=DATA_DIR_VARIABLE,
        help="Folder of streams, ledger, indexes, logs.",
    )


def json_option() -> Decorator:
    """--json: one JSON object on standard output, for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


def config_option() -> Decorator:
    """--config: the settings file."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        envvar="QRELAY_CONFIG",
        help="Settings file (YAML).",
    )
