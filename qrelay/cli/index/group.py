"""`qrelay index`: its commands."""

from __future__ import annotations

import click

from qrelay.cli.group import Group, example
from qrelay.cli.index.building import build, reembed
from qrelay.cli.index.load import load
from qrelay.cli.index.reading import corpus, info, list_, passages, search, verify
from qrelay.cli.index.update import update


@click.group(cls=Group, epilog=example("qrelay index build corpus.jsonl --collection docs"))
def index() -> None:
    """Build and inspect the retriever's indexes."""


for _command in (build, update, load, reembed, info, list_, verify, search, passages, corpus):
    index.add_command(_command)
