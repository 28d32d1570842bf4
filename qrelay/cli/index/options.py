"""The options by which commands choose an embedder, and the embedder that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from qrelay.index.settings import RetrieverSettings
from qrelay.models.engines import ENGINES, EncoderEngine


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
