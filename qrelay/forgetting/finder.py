"""Knowing texts again where they may stand: alone in a field, in a line of their own, in quotes, escaped for JSON or
HTML.

A text that is a part of another sentence is that sentence's: the queries of others are left alone. Where taking too
much costs nothing but asking again (`loosely`), a long text is found within sentences too.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import zstandard

from qrelay.parsing import json_document

REMOVED: Final = "[forgotten]"
_LONG: Final = 12
"""Characters from which a text within a sentence is taken for itself."""
_MOST: Final = 256 * 1024**2
_BEFORE: Final = r"(?:(?<![^\n\r\t\"'>])|(?<=: )|(?<=\\n)|(?<=\\\"))"
_AFTER: Final = r"(?=$|[\n\r\t\"'<]|\\n|\\\"|&#)"
_ASKED: Final = ("query", "query_text", "question", "anchor")
"""Fields of a row that say which query it is about."""


class Finder:
    """Of the texts that are to be forgotten."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(stripped for each in texts if (stripped := each.strip()))
        forms = sorted({form for text in self.texts for form in _forms(text)}, key=len, reverse=True)
        written = "|".join(map(re.escape, forms)) or "(?!)"
        self._bounded = re.compile(f"{_BEFORE}(?:{written}){_AFTER}")
        long = [re.escape(form.encode(errors="surrogateescape")) for form in forms if len(form) >= _LONG]
        self._long = re.compile(b"|".join(long) or b"(?!)")

    def loosely(self, content: str | bytes) -> bool:
        """Whether the content holds one, be it within a sentence, or packed by zstd."""
        data = content.encode(errors="replace") if isinstance(content, str) else unpacked(content)
        return bool(self._long.search(data) or self._bounded.search(data.decode(errors="surrogateescape")))

    def within(self, data: Any) -> bool:
        """Whether bytes, or a mapped file, hold a long one."""
        return bool(self._long.search(data))

    def equals(self, value: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, str) and value.strip() in self.texts

    def line(self, line: bytes) -> bool:
        """Whether a line of JSON, or of fields between tabs, is about one."""
        try:
            row = json_document(line)
        except ValueError:
            fields = line.decode(errors="surrogateescape").rstrip("\r\n").split("\t")
            return any(map(self.equals, fields))
        return self._row(row)

    def _row(self, row: Any) -> bool:
        asked = [row[name] for name in _ASKED if isinstance(row.get(name), str)] if isinstance(row, dict) else []
        if asked:
            return any(map(self.equals, asked))
        return any(self.equals(each) or self._bounded.search(each) for each in _strings(row))

    def without(self, content: str) -> tuple[str, int]:
        """The content with REMOVED in the place of each text; how many there were."""
        return self._bounded.subn(REMOVED, content)


def unpacked(data: bytes) -> bytes:
    """What zstd packed, as far as it can be read."""
    if not data.startswith(zstandard.MAGIC_NUMBER.to_bytes(4, "little")):
        return data
    try:
        return data + zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST)
    except zstandard.ZstdError:
        return data


def _forms(text: str) -> Iterator[str]:
    """The text as it is written in plain files, JSON and HTML."""
    yield text
    yield html.escape(text)
    yield html.escape(text, quote=False)
    yield html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")  # as templates write it
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as fields:
                waiting += fields.values()
            case list() as items:
                waiting += items
