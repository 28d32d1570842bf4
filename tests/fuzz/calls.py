"""What the Python client is given, and what services answer it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from qrelay import wire
from qrelay.client import inputs
from qrelay.client.ledger import described
from qrelay.errors import MalformedInput
from qrelay.parsing import json_document
from qrelay.runtime.translate import error_of_item
from qrelay.v1.service_info_pb2 import ItemError
from qrelay.v1.sink_pb2 import ExportManifest
from tests.fuzz.parser import Parser, constant

_SET: Final = {"query_id": "7", "text": "tides", "candidates": [{"doc_id": "a", "text": "moon", "score": 2.0}]}


def _text(data: bytes, _: Path) -> None:
    wire.to_proto(inputs.query(data.decode("utf8", "surrogateescape"), "docs"))


def _object(data: bytes, _: Path) -> None:
    """An object that a caller made of JSON."""
    try:
        item: Any = json_document(data)
    except ValueError as error:
        raise MalformedInput(str(error)) from error
    wire.to_proto(inputs.fed(item, "docs"))


def _manifest(data: bytes, folder: Path) -> None:
    described(folder / "mine.qrels", ExportManifest(manifest_json=data.decode("utf8", "replace")))


def _error(data: bytes, _: Path) -> None:
    words = data.decode("utf8", "replace")
    error_of_item(ItemError(query_id="7", reason=words[:40], message=words))


PARSERS: Final = (
    Parser("a query's text", "lines", constant("how do I parse JSON?"), _text),
    Parser("a caller's object", "json", constant(json.dumps(_SET), '{"query_id": "7", "text": "tides"}'), _object),
    Parser("an export's manifest", "json", constant('{"rows": 3, "qualification": {"warnings": []}}'), _manifest),
    Parser("an item's error", "lines", constant("unknown_collection", "newer_reason"), _error),
)
