"""`qrelay dlq`: the queries that could not be labelled, why, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option, json_option, reached
from qrelay.config import Transport
from qrelay.errors import UnknownCollection
from qrelay.exitcodes import EXIT_FAILED
from qrelay.nearest import did_you_mean, listed
from qrelay.output import Rows, echo_json
from qrelay.output import show as show_table
from qrelay.rundir import require
from qrelay.runtime.client import channel, signed
from qrelay.v1 import sink_pb2, sink_pb2_grpc

_PAGE = 200
_HEADINGS = ("id", "state", "stage", "reason", "query_id", "attempts", "detail")
_TIMEOUT_S = 30.0
_sink_option = click.option("--sink", "address", help="host:port of the sink.  [default: the one in --data-dir]")


@click.group(cls=Group, epilog=example("qrelay dlq list --collection docs"))
def dlq() -> None:
    """List, show and replay dead letters."""


@dlq.command("list", epilog=example("qrelay dlq list --collection docs --all"))
@data_dir_option()
@config_option(used=False)
@_sink_option
@click.option("--collection", default="", help="Only this collection.")
@click.option("--all", "include_closed", is_flag=True, help="Include those replayed or resolved.")
@json_option()
def list_(data_dir: Path, address: str | None, collection: str, include_closed: bool, as_json: bool) -> None:
    """List dead letters, newest last."""
    address, transport = address or require(data_dir, "sink").grpc, reached(data_dir)
    entries = list(_entries(address, transport, collection, include_closed))
    if not entries and collection:
        _require_collection(address, transport, collection)
    if as_json:
        echo_json({"dead_letters": [_as_dict(entry) for entry in entries]})
    elif entries:
        show_table(Rows(_HEADINGS, [_row(entry) for entry in entries], prose=("detail",)))
    else:
        of = f" of {collection}" if collection else ""
        click.echo(f"no dead letters{of}" if include_closed else f"no open dead letters{of}; --all lists closed ones")


@dlq.command(epilog=example("qrelay dlq show 3f9a1c"))
@click.argument("dead_letter_id")
@data_dir_option()
@config_option(used=False)
@_sink_option
def show(dead_letter_id: str, data_dir: Path, address: str | None) -> None:
    """Print one whole dead letter as JSON. The start of its id is enough."""
    for entry in _entries(address or require(data_dir, "sink").grpc, reached(data_dir), "", True):
        if entry.dead_letter.dead_letter_id.startswith(dead_letter_id):
            echo_json(MessageToDict(entry, preserving_proto_field_name=True))
            return
    raise click.ClickException(f"no dead letter {dead_letter_id}; see `qrelay dlq list --all`")


@dlq.command(epilog=example("qrelay dlq replay --all"))
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Replay all open ones.")
@data_dir_option()
@config_option(used=False)
@_sink_option
@json_option()
def replay(ids: tuple[str, ...], everything: bool, data_dir: Path, address: str | None, as_json: bool) -> None:
    """Publish the originals again, each to the stage where it failed."""
    if bool(ids) == everything:
        raise click.UsageError("give ids, or --all")
    address, transport = address or require(data_dir, "sink").grpc, reached(data_dir)
    whole = _complete(ids, _entries(address, transport, "", False)) if ids else []
    with channel(address, transport) as opened:
        request = sink_pb2.ReplayDeadLettersRequest(dead_letter_ids=whole, all=everything)
        answer = signed(sink_pb2_grpc.SinkServiceStub(opened)).ReplayDeadLetters(request, timeout=_TIMEOUT_S)
    if as_json:
        echo_json(_as_dict(answer))
    else:
        click.echo(f"replayed {answer.replayed}" + "".join(f"\nnot replayed: {left}" for left in answer.skipped_ids))
    if answer.skipped_ids:
        click.echo("a letter is not replayed that is not open, or that no queue takes: see the sink's log", err=True)
        raise SystemExit(EXIT_FAILED)


def _entries(
    address: str, transport: Transport, collection: str, include_closed: bool
) -> Iterator[sink_pb2.DeadLetterEntry]:
    """Page by page: a dead letter holds its original, up to a megabyte."""
    with channel(address, transport) as opened:
        stub, token = signed(sink_pb2_grpc.SinkServiceStub(opened)), ""
        while True:
            request = sink_pb2.ListDeadLettersRequest(
                collection=collection, include_closed=include_closed, page_size=_PAGE, page_token=token
            )
            page = stub.ListDeadLetters(request, timeout=_TIMEOUT_S)
            yield from page.entries
            token = page.next_page_token
            if not token:
                return


def _row(entry: sink_pb2.DeadLetterEntry) -> tuple[str, ...]:
    letter = entry.dead_letter
    state = sink_pb2.DeadLetterState.Name(entry.state).removeprefix("DEAD_LETTER_STATE_").lower()
    who = (letter.dead_letter_id, state, letter.stage, letter.reason, letter.query_id)
    return *who, str(letter.attempts), letter.detail


def _require_collection(address: str, transport: Transport, collection: str) -> None:
    """Raises UnknownCollection: the sink knows other collections, and not this one."""
    with channel(address, transport) as opened:
        stub = signed(sink_pb2_grpc.SinkServiceStub(opened))
        answer = stub.GetStats(sink_pb2.GetStatsRequest(), timeout=_TIMEOUT_S)
    held = [each.collection for each in answer.collections]
    if held and collection not in held:
        raise UnknownCollection(
            f"the sink knows nothing of collection {collection!r}; it holds {listed(held)}."
            + did_you_mean(collection, held)
        )


def _complete(prefixes: Sequence[str], entries: Iterable[sink_pb2.DeadLetterEntry]) -> list[str]:
    """The whole id of each prefix that one dead letter has."""
    known = [entry.dead_letter.dead_letter_id for entry in entries]
    found = [[each for each in known if each.startswith(prefix)] for prefix in prefixes]
    return [ids[0] if len(ids) == 1 else prefix for prefix, ids in zip(prefixes, found, strict=True)]


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
