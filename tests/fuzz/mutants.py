"""Inputs from seeds: what a disk, a network, an editor or another program makes of a file or a message of ours.

`mutant(seeds, form, number)` is a pure function: the same number gives the same bytes. `monsters` are inputs that are
large or hostile by design.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import yaml
import zstandard

Form = Literal["json", "jsonl", "lines", "yaml", "proto", "bytes"]
"""How a seed is built: a JSON document, one a line, lines of fields, YAML, a protobuf message, or anything."""
_MEGABYTE: Final = 1 << 20
ODD_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.0,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    2**31,
    2**31 - 1,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "é" * 3,
    "\u2028",
    "\x85",
    "\ufeff",
    "NaN",
    "1e999",
    "-0",
    "0x10",
    "1_000",
    "٣",
    "true",
    "null",
    "../../etc/passwd",
    "/",
    ".",
    "..",
    "a" * 300,
    "1970-13-45",
    "9999-12-31T23:59:59Z",
    "%s%n{}{0}",
    "=cmd()",
    "<script>",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"a": {}}},
    ["a", 1, None, {}],
    [0] * 50,
    {"__proto__": 1},
)
_ODD_WORDS: Final = (
    "",
    "-1",
    "0",
    "1",
    "-0",
    "3.5",
    "1e5",
    "1e999",
    "-1e999",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "٣",
    "²",
    "1_000",
    "+1",
    " 1",
    "0x1F",
    "9" * 30,
    "9" * 5000,
    str(2**63),
    str(-(2**63) - 1),
    "\0",
    "é",
    "\ud7ff",
    "\u2028",
    "\u202e",
    "\ufeff",
    "true",
    "null",
    "a" * 500,
    "#",
    "q#1",
    "#0",
    "a#-1",
    "a#" + "9" * 400,
    "a b",
    "'",
    '"',
    '"""',
    "\\",
    "\\u0000",
    "\\ud800",
    "{}",
    "[]",
    "[[",
    "%00",
    "..",
    "/",
    "../x",
    "--help",
    "=",
    "<=",
    "and",
    "id",
    "query_id",
    "score",
    "\r",
    "\x1c",
    "\x85",
)
_YAML_WORDS: Final = (
    "2001-13-45",
    "2001-02-30 99:99:99",
    "!!int x",
    "!!float x",
    "!!timestamp x",
    "!!binary x",
    "!!bool x",
    "!!python/object:os.system x",
    "!!set {a, b}",
    "!!omap [a]",
    "!!null x",
    "&a [*a]",
    "*nowhere",
    "<<: 1",
    "{<<: [1]}",
    "? [a]",
    "[",
    "{",
    "'",
    "|",
    ">",
    "%YAML 9",
    "1:99:99",
    "0o9",
    "0b2",
    "1" * 5000,
    ".nan",
    "-.inf",
    "~",
    "=",
    "- -",
    "...",
    "---",
    "\t",
    "&",
    "*",
    "!",
    "@",
    "`",
    "{1: 2, null: 3, [a]: 4}",
    "!!map [1]",
    "!!str {a: 1}",
    "!<x> y",
    "!!merge x",
    "!!value x",
    "!!seq 3",
)
_BYTES: Final = (
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b"\x80",
    b"\x7f",
    b"\xff" * 9,
    b"PK\x03\x04",
    b"\x1c",
    b"\xf4\x90\x80\x80",
)
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_.+-]+|\S")


def mutant(seeds: Sequence[bytes], form: Form, number: int) -> bytes:
    """Input `number` of these seeds: the first ones are the seeds, the others have one to four changes."""
    if number < len(seeds):
        return seeds[number]
    draw = random.Random(number)
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(_CHANGES[form])(data, draw)
    return _whole(data, draw) if draw.random() < 0.04 else data


def monsters(seed: bytes, size_mib: float) -> Iterator[tuple[str, bytes]]:
    """(name, input): each is cheap to send and dear to read."""
    deep, size = 100_000, int(size_mib * _MEGABYTE)
    yield "empty", b""
    yield "a long word", b"a" * size
    yield "a long word at the end", seed + b"a" * size
    yield "many short lines", b"a\n" * (size // 10)
    yield "zeros", bytes(size)
    yield "brackets nested 100,000 deep", b"[" * deep + b"]" * deep
    yield "objects nested 100,000 deep", b'{"a":' * deep + b"1" + b"}" * deep
    yield "our document in 100,000 brackets", b"[" * deep + seed.rstrip() + b"]" * deep
    yield "a text in our document nested 100,000 deep", _first_text(seed, b"[" * deep + b"]" * deep)
    yield "parentheses nested 100,000 deep", b"(" * deep + b")" * deep
    yield "a number of many digits", _first_number(seed, b"9" * (size // 10))
    yield "a number nested as a list literal", _first_text(seed, json.dumps("[" * 5000 + "]" * 5000).encode())
    yield "YAML of nine generations", _laughs()
    yield "YAML that holds itself", b"a: &a\n  b: *a\n  c: [*a]\n"
    yield "gzip of one letter, 20 times the size", gzip.compress(b"a" * (20 * size), 1, mtime=0)
    yield "zstd of zeros, 20 times the size", zstandard.compress(bytes(20 * size))
    yield "UTF-16", seed.decode("utf8", "replace").encode("utf-16")
    yield "a gzip cut in its middle", (packed := gzip.compress(seed, mtime=0))[: len(packed) // 2]


def _first_text(seed: bytes, instead: bytes) -> bytes:
    return re.sub(rb'"[^"]*"(?!\s*:)', lambda _: instead, seed, count=1)


def _first_number(seed: bytes, instead: bytes) -> bytes:
    return re.sub(rb"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", lambda _: instead, seed, count=1)


def _laughs() -> bytes:
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(lines).encode()


def _whole(data: bytes, draw: random.Random) -> bytes:
    """The whole input as another program wrote it."""
    text = data.decode("utf8", "replace")
    return draw.choice(
        (
            lambda: gzip.compress(data, mtime=0),
            lambda: gzip.compress(data, mtime=0)[:-9],
            lambda: gzip.compress(data, mtime=0) + b"tail",
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-32"),
            lambda: text.encode("latin-1", "replace"),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", b"\r"),
            lambda: b"",
            lambda: b"\n" * 5,
            lambda: zstandard.compress(data),
            lambda: base64.b64encode(data),
        )
    )()


# -- bytes


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\0"
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 16, 64, 1024)))


def _drop(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + data[end:]


def _double(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return data[:end] + data[start:end] * draw.choice((1, 1, 3, 200)) + data[end:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(_BYTES) + data[at:]


# -- words and lines


def _word(data: bytes, draw: random.Random) -> bytes:
    return _other_word(data, draw.choice(_ODD_WORDS), draw)


def _yaml_word(data: bytes, draw: random.Random) -> bytes:
    return _other_word(data, draw.choice(_YAML_WORDS), draw)


def _other_word(data: bytes, word: str, draw: random.Random) -> bytes:
    spans = [found.span() for found in _TOKEN.finditer(data[:65536])]
    start, end = draw.choice(spans) if spans else (0, 0)
    return data[:start] + word.encode() + data[end:]


def _lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = b""
        case 4:
            lines[at] = lines[at] + lines[other]
        case _:
            lines.insert(at, draw.choice(_ODD_WORDS).encode())
    return b"\n".join(lines)


def _field(data: bytes, draw: random.Random) -> bytes:
    """A field of a line goes, comes, moves or changes."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    by = b"\t" if b"\t" in lines[at] else b" "
    fields = lines[at].split(by)
    place = draw.randrange(len(fields))
    match draw.randrange(5):
        case 0:
            del fields[place]
        case 1:
            fields.insert(place, draw.choice(_ODD_WORDS).encode())
        case 2:
            draw.shuffle(fields)
        case 3:
            by = draw.choice((b"\t", b" ", b",", b"\t\t", b"\x1f", b"\xc2\xa0"))
        case _:
            fields[place] = draw.choice(_ODD_WORDS).encode()
    lines[at] = by.join(fields)
    return b"\n".join(lines)


# -- trees


def _json(data: bytes, draw: random.Random) -> bytes:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _word(data, draw)
    return _dumped(_other_tree(tree, draw), draw).encode("utf8", "surrogatepass")


def _json_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    lines[at] = _json(lines[at], draw)
    return b"\n".join(lines)


def _yaml(data: bytes, draw: random.Random) -> bytes:
    try:
        tree = yaml.safe_load(data)
        return yaml.safe_dump(_other_tree(tree, draw), sort_keys=False).encode("utf8", "replace")
    except Exception:  # whatever YAML's constructors raise
        return _yaml_word(data, draw)


def _dumped(tree: Any, draw: random.Random) -> str:
    try:
        return json.dumps(tree, ensure_ascii=draw.random() < 0.7, indent=draw.choice((None, None, 1)))
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes
        return "[]"


def _nodes(tree: Any, into: list[tuple[Any, Any]], limit: int = 5000) -> None:
    """(container, key) of every value beneath."""
    open_ = [tree]
    while open_ and len(into) < limit:
        node = open_.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            into.append((node, key))
            open_.append(value)


def _other_tree(tree: Any, draw: random.Random) -> Any:
    """The tree with one value gone, another, doubled, wrapped, renamed, or of a neighbour."""
    tree = copy.deepcopy(tree)
    nodes: list[tuple[Any, Any]] = []
    _nodes(tree, nodes)
    if not nodes or draw.random() < 0.03:
        return copy.deepcopy(draw.choice(ODD_VALUES))
    holder, key = draw.choice(nodes)
    odd = copy.deepcopy(draw.choice(ODD_VALUES))
    match draw.randrange(9):
        case 0 | 1 | 2 | 3:
            holder[key] = odd
        case 4:
            del holder[key]
        case 5:
            other, place = draw.choice(nodes)
            holder[key] = copy.deepcopy(other[place])
        case 6:
            holder[key] = draw.choice((lambda v: [v], lambda v: {"a": v}, str, lambda v: [v, v], _deep))(holder[key])
        case 7 if isinstance(holder, dict):
            name = draw.choice((odd if isinstance(odd, str) else "x", str(key).upper(), "", str(key) + " "))
            holder[name] = holder.pop(key)
        case 7:
            holder.extend(copy.deepcopy(holder[:50]))
        case _ if isinstance(holder, dict):
            holder[draw.choice(("unknown", "", "kind", "format", "name"))] = odd
        case _:
            holder.insert(0, odd)
    return tree


def _deep(value: Any) -> Any:
    for _ in range(150):
        value = [value]
    return value


# -- protobuf


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80 or shift > 63:
            return value, at


def fields_of(data: bytes) -> list[tuple[int, int, bytes]] | None:
    """(number, wire type, bytes of the value) of a message; None where these bytes are none."""
    found, at = [], 0
    try:
        while at < len(data):
            tag, at = _read_varint(data, at)
            kind = tag & 7
            if kind == 0:
                value, end = _read_varint(data, at)
                found.append((tag >> 3, 0, _varint(value)))
            elif kind in (1, 5):
                end = at + (8 if kind == 1 else 4)
                found.append((tag >> 3, kind, data[at:end]))
            elif kind == 2:
                size, start = _read_varint(data, at)
                end = start + size
                found.append((tag >> 3, 2, data[start:end]))
            else:
                return None
            if not tag >> 3 or end > len(data):
                return None
            at = end
    except IndexError:
        return None
    return found


def bytes_of(fields: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The message of these fields."""
    return b"".join(
        _varint(number << 3 | kind) + (_varint(len(value)) if kind == 2 else b"") + value
        for number, kind, value in fields
    )


def _proto(data: bytes, draw: random.Random) -> bytes:
    """A field goes, comes, is repeated, changes its wire type or value; or so within it."""
    fields = fields_of(data)
    if not fields:
        return _flip(data, draw)
    at = draw.randrange(len(fields))
    number, kind, value = fields[at]
    if kind == 2 and fields_of(value) and draw.random() < 0.6:
        fields[at] = number, kind, _proto(value, draw)
        return bytes_of(fields)
    match draw.randrange(8):
        case 0:
            del fields[at]
        case 1:
            fields.insert(draw.randrange(len(fields) + 1), fields[at])
        case 2:
            fields[at] = number, 0, _varint(draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)))
        case 3:
            fields[at] = number, 1, draw.choice(_DOUBLES)
        case 4:
            fields[at] = (
                number,
                2,
                draw.choice((b"", b"\xff\xfe", b"\0", "\u2028é".encode(), b"a" * 5000, value + value, b"\x08\x01")),
            )
        case 5:
            fields[at] = draw.choice((1, 2, 3, 4, 5, 15, 16, 99, 2**29 - 1)), kind, value
        case 6:
            other = draw.choice(fields)
            fields[at] = number, other[1], other[2]
        case _:
            fields.append((draw.choice((1, 2, 3, 4)), 2, value))
    return bytes_of(fields)


_DOUBLES: Final = tuple(
    bytes.fromhex(text)
    for text in (
        "000000000000f87f",
        "000000000000f07f",
        "000000000000f0ff",
        "ffffffffffffef7f",
        "0100000000000000",
        "0000000000000080",
    )
)
"""NaN, both infinities, the largest and the smallest number, minus zero."""
_ANY: Final = (_flip, _cut, _drop, _double, _insert)
Change = Callable[[bytes, random.Random], bytes]
_CHANGES: Final[dict[str, tuple[Change, ...]]] = {
    "bytes": _ANY,
    "lines": (*_ANY, _word, _word, _lines, _lines, _field, _field, _field),
    "json": (*_ANY, _word, _json, _json, _json, _json, _json, _json, _json, _json),
    "jsonl": (
        *_ANY,
        _word,
        _lines,
        _json_line,
        _json_line,
        _json_line,
        _json_line,
        _json_line,
        _json_line,
        _json_line,
    ),
    "yaml": (*_ANY, _lines, _word, _yaml_word, _yaml_word, _yaml, _yaml, _yaml, _yaml),
    "proto": (_flip, _cut, _double, _proto, _proto, _proto, _proto, _proto, _proto),
}
