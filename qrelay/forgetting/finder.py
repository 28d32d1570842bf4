"""Knowing texts again where they may stand: alone in a field, in a line of their own, in quotes, escaped for JSON or
HTML.

A text that is a part of another sentence is that sentence's: the queries of others are left alone. Where taking too
much costs nothing but asking again (`loosely`), a long text is found within sentences too.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import zstandard

REMOVED: Final = "[forgotten]"
_LONG: Final = 12
"""Bytes from which a text within a sentence is taken for itself."""
_MOST: Final = 256 * 1024**2
_BEFORE: Final = r"(?:(?<![^\n\r\t\"'>])|(?<=: )|(?<=\\n)|(?<=\\\"))"
_AFTER: Final = r"(?=$|[\n\r\t\"'<]|\\n|\\\"|&#)"
_EDGE: Final = rb"[\x00-\x1f\x7f\"'<>\\]"
"""Bytes that part a short text from what stands beside it."""
_ASKED: Final = ("query", "query_text", "question", "anchor")
"""Fields of a row that say which query it is about."""


class Finder:
    """Of the texts that are to be forgotten, and of the queries of the collection that had them."""

    def __init__(self, texts: Iterable[str], collection: str = "", ids: Iterable[str] = ()) -> None:
        self.texts = frozenset(stripped for each in texts if (stripped := each.strip()))
        self.collection, self.ids = collection, frozenset(ids)
        forms = sorted({form for text in self.texts for form in _forms(text)}, key=len, reverse=True)
        packed = [form.encode(errors="surrogateescape") for form in forms]
        long = [form for form, data in zip(forms, packed, strict=True) if len(data) >= _LONG]
        self._bounded = re.compile(f"{_BEFORE}(?:{_any(forms)}){_AFTER}")
        self._surely = re.compile(f"{_BEFORE}(?:{_any(long)}){_AFTER}")
        self._shown = re.compile(rf"(?<=>)(\s*)(?:{_any(long)})(?=\s*<)")
        self._long = re.compile(b"|".join(re.escape(each) for each in packed if len(each) >= _LONG) or b"(?!)")
        short = b"|".join(re.escape(each) for each in packed if len(each) < _LONG)
        self._short = re.compile(b"(?:\\A|(?<=%b))(?:%b)(?=%b|\\Z)" % (_EDGE, short or b"(?!)", _EDGE))

    def loosely(self, content: str | bytes) -> bool:
        """Whether the content holds one, be it within a sentence, or packed by zstd."""
        data = _bytes(content)
        return bool(self._long.search(data) or self._bounded.search(data.decode(errors="surrogateescape")))

    def quotes(self, content: str | bytes) -> bool:
        """Whether the content holds a long one. Short ones are left out: a reply may be one by chance."""
        return bool(self._long.search(_bytes(content)))

    def surely(self, content: str | bytes) -> bool:
        """Whether a long one stands alone in the content, in a field or a line of its own."""
        return bool(self._surely.search(_bytes(content).decode(errors="surrogateescape")))

    def alone(self, data: bytes) -> bool:
        """Whether one stands alone in the bytes."""
        return bool(self._bounded.search(data.decode(errors="surrogateescape")))

    def within(self, data: Any) -> bool:
        """Whether bytes, or a mapped file, hold a long one anywhere, or a short one alone."""
        return bool(self._long.search(data) or self._short.search(data))

    def equals(self, value: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, str) and value.strip() in self.texts

    def asked(self, row: Any, told: str, *more: str) -> bool:
        """Whether a row is about one of the queries: its text is one of theirs, and its id or its collection, which
        the row or the folder (`told`) names, is theirs too. more: further fields that hold queries here."""
        if not isinstance(row, Mapping) or not any(self.equals(row.get(name)) for name in (*_ASKED, *more)):
            return False
        collection, query_id = row.get("collection") or told, row.get("query_id") or row.get("_id")
        if collection and collection != self.collection:
            return False
        return str(query_id) in self.ids if query_id else bool(collection)

    def values(self, value: Any) -> tuple[Any, int]:
        """A document's value with REMOVED in the place of the queries' texts; how many there were."""
        if isinstance(value, list):
            found = [self.values(each) for each in value]
            return [each for each, _ in found], sum(count for _, count in found)
        if not isinstance(value, dict):
            return value, 0
        mine = self.asked(value, "", "text")
        fields = {
            name: (REMOVED, 1) if mine and name in (*_ASKED, "text") and self.equals(each) else self.values(each)
            for name, each in value.items()
        }
        return {name: each for name, (each, _) in fields.items()}, sum(count for _, count in fields.values())

    def page(self, content: str) -> tuple[str, int]:
        """A page with REMOVED in the place of each long text that an element holds alone; how many there were."""
        return self._shown.subn(rf"\1{REMOVED}", content)


def _any(forms: Iterable[str]) -> str:
    return "|".join(map(re.escape, forms)) or "(?!)"


def _bytes(content: str | bytes) -> bytes:
    return content.encode(errors="replace") if isinstance(content, str) else unpacked(content)


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
