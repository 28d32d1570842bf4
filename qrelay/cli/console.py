"""`qrelay console`: the console's server alone, in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, insecure_option


@click.command(epilog=example("qrelay console --port 7405"))
@data_dir_option()
@config_option()
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: "
              "that of console.bind]")  # fmt: skip
@insecure_option()
def console(data_dir: Path, config: Path | None, port: int | None) -> None:
    """Serve pages, HTTP/JSON and MCP on this machine until Ctrl-C: see and correct labels in a browser.

    It listens on 127.0.0.1; on another address only where console.bind names one and `access` says who people are.
    `qrelay up` starts it too, unless console.enabled is false. What needs a service (retrieve, rerank, judge, feed)
    says so where none runs.
    """
    from qrelay.web.serving import serve
    from qrelay.web.site import Site

    serve(Site.of(data_dir, config, port=port), _say)


def _say(text: str) -> None:
    """To a person; programs read the log, and the announcement in `run_dir`."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
