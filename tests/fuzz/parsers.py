"""The table: every parser of bytes from outside. `test_fuzz.py` holds it to the readers that the source has."""

from __future__ import annotations

from typing import Final

from tests.fuzz import access, calls, formats, installation, messages, network, training_sets, web
from tests.fuzz.parser import Parser

PARSERS: Final[dict[str, Parser]] = {
    parser.name: parser
    for room in (messages, formats, training_sets, installation, network, web, calls, access)
    for parser in room.PARSERS
}
