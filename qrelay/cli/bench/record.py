"""`qrelay bench record`: what real services make of real queries, kept for `--sets` of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from qrelay import wire
from qrelay.bench.targets.recorded import read_queries, write_records
from qrelay.bench.targets.services import ENDPOINTS
from qrelay.cli.bench.options import file_option
from qrelay.cli.group import example
from qrelay.config import Transport
from qrelay.errors import InputError
from qrelay.identity import require_collection
from qrelay.progress import shown, step
from qrelay.runtime.client import channel, signed
from qrelay.settings.load import transport_of

_BATCH = 4
_DEADLINE_S = 600.0


@click.command(
    epilog=example(
        "qrelay bench record --queries queries.jsonl --collection docs "
        "--retriever 127.0.0.1:7401 --reranker 127.0.0.1:7402 --out sets.jsonl"
    )
)
@file_option("--queries", "Queries, as `qrelay feed` reads them.")
@click.option("--collection", required=True, help="The corpus that the queries are asked of.")
@click.option("--retriever", required=True, metavar="HOST:PORT", help="gRPC address of a running retriever.")
@click.option("--reranker", metavar="HOST:PORT", help="A reranker's address: adds what the judge's benchmark sends.")
@click.option("--judge", metavar="HOST:PORT", help="A judge's address: adds what the sink's benchmark sends.")
@click.option("--limit", type=click.IntRange(1), help="Use only this many queries.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
def record(queries: Path | None, collection: str, retriever: str, reranker: str | None, judge: str | None,
           limit: int | None, out: Path) -> None:  # fmt: skip
    """Ask running services and keep their answers, for the benchmarks of reranker, judge and sink."""
    if queries is None:
        raise click.UsageError("--queries is missing: a file with one query a line")
    if judge and not reranker:
        raise click.UsageError("--judge needs --reranker: the judge reads the reranker's sets")
    require_collection(collection)
    asked = read_queries(queries, collection)[:limit]
    stages = {"retriever": retriever, "reranker": reranker, "judge": judge}
    addresses = {service: address for service, address in stages.items() if address}
    transport = transport_of(None)
    with shown(), step("recording answers", total=len(asked), unit="queries") as recording:

        def records() -> Iterator[wire.Record]:
            for start in range(0, len(asked), _BATCH):
                yield from _asked(asked[start : start + _BATCH], addresses, transport)
                recording.at(min(start + _BATCH, len(asked)))

        count = write_records(out, records())
    click.echo(f"{count} records of {len(asked)} queries in {out}")


def _asked(queries: Sequence[Any], addresses: Mapping[str, str], transport: Transport) -> Iterator[wire.Record]:
    """What each stage, in order, makes of what the one before made."""
    items = queries
    for service, address in addresses.items():
        items = _answers(service, address, transport, items)
        yield from map(wire.from_proto, items)


def _answers(service: str, address: str, transport: Transport, items: Sequence[Any]) -> list[Any]:
    endpoint = ENDPOINTS[service]
    with channel(address, transport) as opened:
        answer = getattr(signed(endpoint.stub(opened)), endpoint.method)(endpoint.request(items), timeout=_DEADLINE_S)
    for result in answer.results:
        if result.WhichOneof("result") == "error":
            raise InputError(f"{address} answered {result.error.query_id}: {result.error.message}; nothing was kept")
    return [getattr(result, result.WhichOneof("result")) for result in answer.results]
