"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from qrelay.config import Transport
from qrelay.formats.datasets import Kind
from qrelay.nearest import listed
from qrelay.settings.load import transport_of
from qrelay.settings.sources import default_data_dir

_CONFIG = "qrelay.config"
"""Where a context keeps what --config was given."""
INSECURE = "QRELAY_ALL__INSECURE"
"""The variable that --insecure sets, and where a context keeps that it was given."""
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def data_dir_option() -> Decorator:
    """--data-dir: the folder of this installation's state."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        callback=_data_dir,
        help="Folder of queues, ledger, indexes, logs.  [default: the setting data_dir, else .qrelay]",
    )


def _data_dir(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    """`--config` is read before it, because a settings file may name the folder."""
    if given is None and not ctx.resilient_parsing:
        return default_data_dir(ctx.meta.get(_CONFIG))
    return given


def _config(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    ctx.meta[_CONFIG] = given
    return given


def column_option(kind: Kind) -> Decorator:
    """--column: what the fields of a record are called where it has names of its own; see `Columns.of`."""
    return click.option(
        "--column",
        "told",
        multiple=True,
        metavar="NAME=COLUMN",
        help=f"What a column, or a key of JSONL, is called: NAME is {listed(kind.fields)}; several times for more.",
    )


def reached(data_dir: Path) -> Transport:
    """How this command reaches the installation's services: by its settings. Raises ConfigError."""
    return transport_of(data_dir, click.get_current_context().meta.get(_CONFIG))


def insecure_option() -> Decorator:
    """--insecure: the setting all.insecure of this run, before any settings are read."""
    return click.option(
        "--insecure",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_insecure,
        help="Let plain text leave this machine in this run: the setting all.insecure.",
    )


def _insecure(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        ctx.meta[INSECURE] = True
        os.environ[INSECURE] = "true"


def insecure_given() -> bool:
    """Whether this command was given --insecure."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.meta.get(INSECURE))


def json_option() -> Decorator:
    """--json: one JSON object on standard output, for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


def json_file_option() -> Decorator:
    """--json-file: what --json prints, into a file, with indents."""
    return click.option(
        "--json-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="OUT",
        help="Write what --json prints into a file.",
    )


def config_option(*, used: bool = True) -> Decorator:
    """--config: the settings file. used: the command takes it; else it only says where the data folder is."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        envvar="QRELAY_CONFIG",
        is_eager=True,
        expose_value=used,
        callback=_config,
        help="Settings file (YAML).  [default: what `qrelay up` recorded, else ./qrelay.yaml]",
    )
