"""`qrelay models prepare` and `qrelay models tune`: everything that takes long, before a service starts.

`prepare` has what the installation's services need: models fetched, verified, converted. `tune` chooses engine and
judge for this machine first. Both show progress, do nothing twice, and remove what killed tries left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.errors import ConfigError, ModelError
from qrelay.models import tuning
from qrelay.models.catalogue import load_catalogue
from qrelay.models.home import models_dir
from qrelay.models.prepared import available_memory, remove_leftovers
from qrelay.output import echo_json
from qrelay.progress import shown
from qrelay.settings.sources import TUNED_NAME

_BUSY = 0.25
"""Of the processors, from which on a choice says that others used them."""


@click.command(epilog=example("qrelay models prepare"))
@data_dir_option()
@config_option()
@json_option()
def prepare(data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Fetch, verify and convert every model that this installation's services need; nothing is done twice.

    A service that finds its model unprepared does the same by itself when it starts, without fetching.
    """
    with shown():
        done = prepare_all(data_dir, config)
    if as_json:
        echo_json({"models_dir": str(models_dir()), "prepared": done})
        return
    for service, models in done.items():
        click.echo(f"{service}: {', '.join(models) or 'needs no model'}")
    click.echo(f"everything is prepared in {models_dir()}")


def prepare_all(data_dir: Path, config: Path | None) -> dict[str, list[str]]:
    """What `prepare` does; each installed service's models.

    Raises:
        ModelError: one cannot be fetched or converted, or memory or disk are too small.
        ConfigError: a service's settings do not hold.
    """
    from qrelay.cli.models.group import fetch

    remove_leftovers()
    found = [(name, *definition) for name, *definition in _services(data_dir, config)]
    needed = {name: list(dict.fromkeys(definition.models(settings))) for name, definition, settings in found}
    fetch([model for models in needed.values() for model in models])
    for _, definition, settings in found:
        definition.prepare(settings)
    return needed


def _services(data_dir: Path, config: Path | None) -> Iterator[tuple[str, Any, Any]]:
    """(name, definition, settings) of every installed service."""
    from qrelay.cli.serve import load_definition
    from qrelay.settings import load_settings
    from qrelay.settings.sections import SERVICES

    for name in SERVICES:
        definition = load_definition(name)
        yield name, definition, load_settings(definition.settings, name, file=config, data_dir=data_dir)


@click.command(epilog=example("qrelay models tune --no-fetch"))
@data_dir_option()
@config_option()
@click.option("--fetch/--no-fetch", default=True, show_default=True, help="Fetch and prepare what was chosen.")
@click.option("--again", is_flag=True, help="Measure and choose again, if there are no labels yet.")
@json_option()
def tune(data_dir: Path, config: Path | None, fetch: bool, again: bool, as_json: bool) -> None:
    """Choose engine and judge for this machine, once for each installation; fetch and prepare them.

    Measures the processor for some seconds. The choice is kept in the data folder as the lowest layer of its
    settings: your own file wins. An installation that has labels keeps the judge that made them.
    """
    with shown():
        chosen = choice(data_dir, config, again=again, fetching=fetch)
        done = prepare_all(data_dir, config) if fetch else {}
    if as_json:
        echo_json({**chosen, "file": str(data_dir / TUNED_NAME), "prepared": done})
        return
    for line in told(chosen):
        click.echo(line)


def choose_if_open(data_dir: Path, config: Path | None) -> list[str]:
    """For `up`: make the choice where nobody has, neither here nor in the settings, and nothing was labelled yet; in
    lines for people, empty where nothing was chosen."""
    from qrelay.settings import find
    from qrelay.settings.effective import DEFAULT

    settings = find(config, data_dir)
    named = any(settings.origin("judge", (field,)) != DEFAULT for field in ("backend", "model", "judges"))
    if named or has_labels(data_dir, config):
        return []
    return told(choice(data_dir, config))


def choice(data_dir: Path, config: Path | None, *, again: bool = False, fetching: bool = False) -> dict[str, Any]:
    """The installation's choice: the one it has, or one made now and kept. fetching: fetch the embedder, to measure
    it; else it stays PyTorch's where it is not on this machine.

    Raises:
        ConfigError: it has labels and no choice, or labels and `again`.
        ModelError: a model cannot be fetched.
    """
    known = tuning.read(data_dir)
    if known is not None and not again:
        return known
    if has_labels(data_dir, config):
        raise ConfigError(
            f"the installation in {data_dir} has labels, and keeps the judge that made them: for another one "
            "choose another --data-dir, or name judge.backend and judge.model in its settings file"
        )
    from qrelay.models.dtypes import native_dtype
    from qrelay.models.speed import Others, weights_per_second

    others = Others()
    rates = weights_per_second()
    share = others.share()
    chosen, looked_at = tuning.choose(rates, native_dtype("cpu"), available_memory(), load_catalogue())
    made = tuning.document(chosen, looked_at, rates, _texts_per_second(data_dir, config, fetching), share)
    tuning.write(data_dir, made)
    return made


def _texts_per_second(data_dir: Path, config: Path | None, fetching: bool) -> dict[str, float]:
    """Of the configured embedder by engine; empty where it is not to be had, and where the processor has no 8-bit
    arithmetic: there is nothing to gain."""
    from qrelay.cli.models.group import fetch
    from qrelay.models.catalogue import resolve
    from qrelay.models.engines import ENGINES
    from qrelay.models.openvino import integer_arithmetic
    from qrelay.models.tuning_encoders import measure_embedder

    if not integer_arithmetic():
        return {}
    embedder = next((each.embedder for name, _, each in _services(data_dir, config) if name == "retriever"), "")
    if fetching:
        fetch([embedder])
    try:
        resolve(embedder)
        return measure_embedder(embedder, ENGINES, threads=0)
    except ModelError:  # absent, a double, or an engine that is not installed
        return {}


def has_labels(data_dir: Path, config: Path | None) -> bool:
    """Whether the installation's ledger holds a label."""
    from qrelay.labels.lineage.side import open_side

    with open_side(None, data_dir, config) as side:
        return side is not None and side.has_labels()


def told(chosen: dict[str, Any]) -> list[str]:
    """The choice and its reasons, in lines for people."""
    judge, why = chosen["settings"]["judge"], chosen["chosen"]
    looked_at = (
        f"{each['model']} {each['tokens_per_second']} prompt tokens a second, {each['memory_gb']} GB"
        for each in why["judges"]
    )
    encoders = chosen["settings"].get("retriever", {}).get("embedder_engine", "torch")
    others = why.get("others_took", 0.0)
    busy = [
        f"measured while other programs took {others:.0%} of the processors: when they are done, and before anything "
        "is labelled, `qrelay models tune --again` measures again"
    ]
    return [
        f"judge: {judge['model']} on {judge['backend']}; embedder and cross-encoder: {encoders}",
        f"because: {why['processor']}; {'; '.join(looked_at)} (by estimate; wanted: "
        f"{why['wanted_tokens_per_second']:.0f} a second)",
        *(busy if others >= _BUSY else []),
        "another one: `judge: {model: NAME}` in qrelay.yaml (`qrelay models list` shows the names)",
    ]
