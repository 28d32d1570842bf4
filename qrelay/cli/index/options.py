"""What the commands of `qrelay index` have in common: where indexes are, and the embedder that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from qrelay.cli.options import config_option, data_dir_option
from qrelay.index.settings import RetrieverSettings
from qrelay.models.engines import ENGINES, EncoderEngine
from qrelay.settings import load_settings

FOLDER: Final = click.Path(path_type=Path, file_okay=False)
INDEX: Final = click.Path(path_type=Path, file_okay=False, exists=True)
FILE: Final = click.Path(path_type=Path, dir_okay=False)


def settings_of(data_dir: Path, config: Path | None) -> RetrieverSettings:
    return load_settings(RetrieverSettings, "retriever", file=config, data_dir=data_dir)


def installation(command: Callable[..., Any]) -> Callable[..., Any]:
    """--data-dir and --config, which say where the indexes are and what embeds them."""
    return data_dir_option()(config_option()(command))


def out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--out, None where it is not given."""
    said = "Folder of all indexes.  [default: retriever.index_dir, else in --data-dir]"
    found: Callable[..., Any] = click.option("--out", type=FOLDER, help=said)(command)
    return found


def engine_option() -> Callable[[Any], Any]:
    """--engine, None where it is not given."""
    said = "What computes the vectors.  [default: the setting retriever.embedder_engine]"
    return click.option("--engine", type=click.Choice(ENGINES), help=said)


def dim_option() -> Callable[[Any], Any]:
    """--dim, None where it is not given."""
    said = "Numbers kept of each vector (Matryoshka); 0: all.  [default: the setting retriever.embedder_dim]"
    return click.option("--dim", type=click.IntRange(min=0), help=said)


def embedder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--embedder, --engine and --dim, for `chosen`."""
    said = "Embedding model, path:FOLDER, `endpoint`, or `hash`.  [default: the setting retriever.embedder]"
    named: Callable[..., Any] = click.option("--embedder", help=said)(engine_option()(dim_option()(command)))
    return named


def chosen(settings: RetrieverSettings, embedder: str | None, engine: EncoderEngine | None, dim: int | None) -> Any:
    """The embedder of the options, loaded; the settings say what was not given."""
    from qrelay.index.embedding import loader

    return loader(settings)(
        embedder or settings.embedder,
        engine=engine or settings.embedder_engine,
        dim=settings.embedder_dim if dim is None else dim,
    )
