"""What must not be shown: passwords and tokens inside addresses, and in the free mappings of a setting.

`masked` is the one function that hides them. It is used wherever an address is shown, and once more where text leaves
the process: log lines, gRPC errors, errors of commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

HIDDEN: Final = "***"
_SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_ADDRESSES = re.compile(rf"^{_SCHEME}.*$|{_SCHEME}\S*", re.DOTALL)
"""A text that is one address or several, whatever its password holds; else each word of it that is."""
_NEXT = re.compile(rf",(?={_SCHEME})")
_PAGE = re.compile(r"https?://[^:/@]*(/.*|:\d+/.*@[\w-]*)$", re.IGNORECASE | re.DOTALL)
"""An address in which an @ belongs to the path, as in /model@revision."""
_NAMES_USER: Final = ("postgres", "sqlite", "mysql")
"""Beginnings of schemes whose user without a password is only a name; elsewhere it is a token."""
_GIVEN = re.compile(r"""(?<![^\s?&;,'"({])([^\s?&;,'"({=]+)(?:\s*=\s*|['"]\s*:\s*)""")
"""A name before its value: name=value, or as JSON writes it."""
_VALUE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?:\\.|[^\s&\\])*""")
_BEARER = re.compile(r"(\bBearer\s+)[^\s'\"]+", re.IGNORECASE)
_NAME = re.compile(
    r"(^|[._-])(\w*password|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|authorization)$",
    re.IGNORECASE,
)


def masked(value: Any) -> Any:
    """The value as it may be shown: of the same shape, with what is secret in it as `***`. A text may be an address,
    several separated by commas, a list of name=value as libpq takes it, or prose that holds some."""
    if isinstance(value, str):
        text = _ADDRESSES.sub(lambda found: ",".join(map(_address, _NEXT.split(found[0]))), value)
        return _BEARER.sub(rf"\1{HIDDEN}", "".join(_parameters(text)))
    if isinstance(value, Mapping):
        return {key: HIDDEN if _NAME.search(str(key)) and each else masked(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return _words(value)
    return value


def _words(words: Sequence[Any]) -> list[Any]:
    """A command's words: what follows `--password` is one."""
    before = ["", *words]
    return [
        HIDDEN if isinstance(last, str) and last.startswith("-") and _NAME.search(last) else masked(word)
        for last, word in zip(before, words, strict=False)
    ]


def _address(text: str) -> str:
    """One address. A password may hold anything, even / and @: it ends at the last @."""
    scheme, _, rest = text.partition("://")
    secret, at, host = rest.rpartition("@")
    if not at or _PAGE.match(text):
        return text
    user, colon, _ = secret.partition(":")
    if scheme.lower().startswith(_NAMES_USER):
        return f"{scheme}://{user}:{HIDDEN}@{host}" if colon else text
    shown = f"{user}:" if colon and scheme.lower().startswith("http") else ""
    return f"{scheme}://{shown}{HIDDEN}@{host}"


def _parameters(text: str) -> Iterator[str]:
    """The text in pieces, with what secret names stand before hidden."""
    at = 0
    for found in _GIVEN.finditer(text):
        value = _VALUE.match(text, found.end())
        if found.start() >= at and value and value[0] and _NAME.search(unquote(found[1])):
            yield text[at : found.end()] + HIDDEN
            at = value.end()
    yield text[at:]
