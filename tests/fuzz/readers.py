"""The readers of bytes in the source, found in its syntax trees: functions that decode, parse or open what stands in
a file or came over a connection."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_METHODS: Final = {
    "FromString",
    "ParquetFile",
    "ParseFromString",
    "GzipFile",
    "decompress",
    "literal_eval",
    "load_from_disk",
    "model_validate_json",
    "read_array_header_1_0",
    "read_bytes",
    "read_text",
    "safe_load",
    "stream_reader",
    "urlsafe_b64decode",
    "validate_json",
    "b64decode",
    "memmap",
    "urlopen",
    "parsedate_to_datetime",
}
_OF_MODULES: Final = {
    ("json", "loads"),
    ("json", "load"),
    ("orjson", "loads"),
    ("np", "load"),
    ("numpy", "load"),
    ("response", "json"),
    ("sqlite3", "connect"),
    ("yaml", "load"),
    ("tomllib", "loads"),
    ("pickle", "loads"),
}
_OURS: Final = {
    "all_lines",
    "byte_lines",
    "text_lines",
    "read_rows",
    "read_table",
    "read_records",
    "json_value",
    "parse_line",
    "parse_length_prefixed",
    "json_document",
    "yaml_document",
}
"""The project's own ways of opening a file; who calls one makes something of its lines."""


def readers() -> dict[str, str]:
    """`qrelay.room.module:Class.method` -> the first call that makes it a reader."""
    found: dict[str, str] = {}
    for folder, package in (("qrelay", "qrelay"), ("services", "qrelay.services")):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            inside = path.relative_to(_ROOT / folder)
            if inside.parts[0] in ("v1", "services"):
                continue
            module = ".".join((package, *inside.with_suffix("").parts)).removesuffix(".__init__")
            for name, call in _in(ast.parse(path.read_bytes()), ""):
                found.setdefault(f"{module}:{name}", call)
    return found


def _in(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _in(child, f"{name}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            own = name + child.name
            yield from ((own, call) for call in sorted(set(_calls(child))))
            yield from _in(child, f"{own}.<locals>.")


def _calls(function: ast.AST) -> Iterator[str]:
    """Reading functions that the function itself calls or hands on, not those of functions within it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if call := _reading(child):
            yield call
        yield from _calls(child)


def _reading(called: ast.AST) -> str:
    if isinstance(called, ast.Name):
        return called.id if called.id in _OURS | _METHODS else ""
    if not isinstance(called, ast.Attribute):
        return ""
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    if called.attr in _METHODS or (owner, called.attr) in _OF_MODULES:
        return f"{owner}.{called.attr}".lstrip(".")
    return ""


@contextmanager
def entered(into: set[str]) -> Iterator[None]:
    """Adds every function of qrelay that this thread enters meanwhile, named as `readers` does."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code not in seen:
            seen.add(frame.f_code)

    before: Callable[..., Any] | None = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)
        into.update(name for code in seen if (name := _named(code)))


def _named(code: CodeType) -> str:
    try:
        inside = Path(code.co_filename).resolve().relative_to(_ROOT)
    except ValueError:
        return ""
    parts = inside.with_suffix("").parts
    if parts[0] not in ("qrelay", "services"):
        return ""
    module = ".".join(("qrelay", *parts) if parts[0] == "services" else parts)
    return f"{module.removesuffix('.__init__')}:{code.co_qualname.removesuffix('.<locals>.<lambda>')}"
