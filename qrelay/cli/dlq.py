"""`qrelay dlq`: the queries that could not be labelled, why, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict, MessageToJson
from rich.console import Console
from rich.table import Table

from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.rundir import require
from qrelay.runtime.client import channel
from qrelay.runtime.exitcodes import EXIT_FAILED
from qrelay.v1 import sink_pb2, sink_pb2_grpc

_PAGE = 200
_TIMEOUT_S = 30.0
_sink_option = click.option("--sink", "address", help="host:port of the sink.  [default: the one in --data-dir]")


@click.group()
def dlq() -> None:
    """Dead letters: list, show, replay."""


@dlq.command("list")
@data_dir_option()
@config_option(used=False)
@_sink_option
@click.option("--collection", default="", help="Only this collection.")
@click.option("--all", "include_closed", is_flag=True, help="Also those replayed or resolved.")
@json_option()
def list_(data_dir: Path, address: str | None, collection: str, include_closed: bool, as_json: bool) -> None:
    """One line a dead letter, newest last."""
    entries = _entries(address or require(data_dir, "sink").grpc, collection, include_closed)
    if as_json:
        import json

        click.echo(json.dumps({"dead_letters": [_as_dict(entry) for entry in entries]}))
        return
    table = Table("id", "state", "stage", "reason", "query_id", "attempts", "detail")
    for entry in entries:
        letter = entry.dead_letter
        state = sink_pb2.DeadLetterState.Name(entry.state).removeprefix("DEAD_LETTER_STATE_").lower()
        table.add_row(letter.dead_letter_id[:12], state, letter.stage, letter.reason, letter.query_id,
                      str(letter.attempts), letter.detail[:100])  # fmt: skip
    Console().print(table if entries else "no dead letters")


@dlq.command()
@click.argument("dead_letter_id")
@data_dir_option()
@config_option(used=False)
@_sink_option
def show(dead_letter_id: str, data_dir: Path, address: str | None) -> None:
    """One dead letter whole, as JSON. The id may be shortened."""
    for entry in _entries(address or require(data_dir, "sink").grpc, "", True):
        if entry.dead_letter.dead_letter_id.startswith(dead_letter_id):
            click.echo(MessageToJson(entry, preserving_proto_field_name=True))
            return
    raise click.ClickException(f"no dead letter {dead_letter_id}; see `qrelay dlq list --all`")


@dlq.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All open ones.")
@data_dir_option()
@config_option(used=False)
@_sink_option
@json_option()
def replay(ids: tuple[str, ...], everything: bool, data_dir: Path, address: str | None, as_json: bool) -> None:
    """Publish the originals again, each to the stage where it failed."""
    if bool(ids) == everything:
        raise click.UsageError("give ids, or --all")
    address = address or require(data_dir, "sink").grpc
    whole = [_complete(prefix, _entries(address, "", False)) for prefix in ids]
    with channel(address) as opened:
        request = sink_pb2.ReplayDeadLettersRequest(dead_letter_ids=whole, all=everything)
        answer = sink_pb2_grpc.SinkServiceStub(opened).ReplayDeadLetters(request, timeout=_TIMEOUT_S)
    if as_json:
        click.echo(MessageToJson(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        click.echo(f"replayed {answer.replayed}" + "".join(f"\nnot open: {left}" for left in answer.skipped_ids))
    if answer.skipped_ids:
        raise SystemExit(EXIT_FAILED)


def _entries(address: str, collection: str, include_closed: bool) -> list[sink_pb2.DeadLetterEntry]:
    entries: list[sink_pb2.DeadLetterEntry] = []
    with channel(address) as opened:
        stub, token = sink_pb2_grpc.SinkServiceStub(opened), ""
        while True:
            request = sink_pb2.ListDeadLettersRequest(
                collection=collection, include_closed=include_closed, page_size=_PAGE, page_token=token
            )
            page = stub.ListDeadLetters(request, timeout=_TIMEOUT_S)
            entries += page.entries
            token = page.next_page_token
            if not token:
                return entries


def _complete(prefix: str, entries: list[sink_pb2.DeadLetterEntry]) -> str:
    found = [e.dead_letter.dead_letter_id for e in entries if e.dead_letter.dead_letter_id.startswith(prefix)]
    return found[0] if len(found) == 1 else prefix


def _as_dict(entry: sink_pb2.DeadLetterEntry) -> dict[str, Any]:
    return MessageToDict(entry, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
