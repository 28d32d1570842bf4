"""`qrelay mcp`: the MCP server over standard input and output, for programs that start it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option


@click.command(epilog=example("qrelay mcp --data-dir .qrelay"))
@data_dir_option()
@config_option()
def mcp(data_dir: Path, config: Path | None) -> None:
    """Serve retrieve, rerank, judge, labels, queries and stats to a language model's client, over stdio (MCP).

    The client starts this command itself. The console serves the same at /mcp over HTTP. Logs go to standard error.
    """
    from qrelay.runtime.telemetry import setup_logging
    from qrelay.settings.load import transport_of
    from qrelay.web.mcp import over_stdio
    from qrelay.web.site import Site

    setup_logging("mcp", "WARNING")
    asyncio.run(over_stdio(Site.of(data_dir, config, transport=transport_of(data_dir, config))))
