"""JSON and YAML from outside: what a document says, or ValueError, whatever its bytes are.

The libraries raise other errors at documents that nobody writes by hand: RecursionError at deep nesting, whatever a
constructor happens to raise (YAML's `2001-13-45`, `!!int x`). And a small YAML file with anchors can stand for
billions of values, or hold itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

YAML_BYTES: Final = 1 << 20
"""The largest YAML document that is read; it takes seconds. Ours have some kilobytes."""
_MOST_VALUES: Final = 1_000_000
"""Values of a YAML document, each counted as often as an alias repeats it."""
_DEEPEST: Final = 200
_NESTED: Final = 8
"""Objects within each other; ours are no deeper."""
_DIGITS: Final = 300
"""Of an integer; a float holds 308."""
_PERIODS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE: Final = re.compile(rf"([1-9][0-9]{{0,5}}) */ *({'|'.join(_PERIODS)})")
_MOST_RATES: Final = 4


def json_document(data: bytes | str, *, once: bool = False) -> Any:
    """What the JSON says; numbers and constants as `json` reads them. once: no object may name a field twice.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deep to be read, or with an integer that no float can hold.
    """
    try:
        return json.loads(data, parse_int=_integer, object_pairs_hook=_once if once else None)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def flat(values: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of whatever is no object, or lies deeper than any of ours; a list
    for a tuple, as JSON has it."""
    for name, value in values.items():
        if isinstance(value, Mapping) and within.count(".") < _NESTED:
            yield from flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", list(value) if isinstance(value, tuple) else value


def _once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) < len(fields):
        raise ValueError("a field is there twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def yaml_document(data: bytes | str) -> Any:
    """What the one YAML document says, of the plain types.

    Raises:
        ValueError: not YAML of one document, not UTF-8, larger than YAML_BYTES, nested too deep, or with aliases that
            make it endless.
    """
    if len(data) > YAML_BYTES:
        raise ValueError(f"it has {len(data)} bytes, and at most {YAML_BYTES} are read")
    try:
        found = yaml.safe_load(data.decode() if isinstance(data, bytes) else data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # a constructor's own, such as AttributeError at "!!timestamp x"
        raise ValueError(str(error) or type(error).__name__) from error
    if _values(found, {}, 0) > _MOST_VALUES:
        raise ValueError("its aliases repeat too much: write it out")
    return found


def _values(node: Any, known: dict[int, int], depth: int) -> int:
    """How many values there are beneath and with the node. known: of those that were counted; 0: its count is under
    way, so that it holds itself."""
    if not isinstance(node, dict | list | tuple | set):
        return 1
    if depth > _DEEPEST:
        raise ValueError("it is nested too deep")
    if known.setdefault(id(node), 0) == 0:
        known[id(node)] = -1
        inner = [*node, *node.values()] if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_values(each, known, depth + 1) for each in inner)
    if known[id(node)] < 0:
        raise ValueError("it holds itself, by an alias: write it out")
    return known[id(node)]


def rates_of(text: str) -> tuple[tuple[int, int], ...]:
    """(calls, seconds) of each rate in "100/second; 5000/hour". Raises ValueError: it is written otherwise."""
    found = [_RATE.fullmatch(part.strip()) for part in text.split(";", _MOST_RATES)]
    if len(found) > _MOST_RATES or not all(found):
        raise ValueError(
            f"{text[:80]!r} is no rate: write calls/period, up to 999999 calls and {_MOST_RATES} rates, as in"
            f" 100/second; 5000/hour (a period is a {', '.join(_PERIODS)})"
        )
    return tuple((int(each[1]), _PERIODS[each[2]]) for each in found if each)
