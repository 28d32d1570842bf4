"""The table: every parser of bytes from outside. `test_fuzz.py` holds it to the readers that the source has."""

from __future__ import annotations

from typing import Final

from tests.fuzz import (
    access,
    calls,
    formats,
    indexes,
    messages,
    models,
    network,
    reports,
    settings,
    training,
    training_sets,
    web,
)
from tests.fuzz.parser import Parser

_ROOMS: Final = (messages, formats, training_sets, settings, indexes, models, training, reports, network, web, calls,
                 access)  # fmt: skip
PARSERS: Final[dict[str, Parser]] = {parser.name: parser for room in _ROOMS for parser in room.PARSERS}
