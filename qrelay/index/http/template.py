"""A request's template: JSON in which texts hold placeholders.

    {"query": {"match": {"text": "{query}"}}, "size": "{size}", "from": "{from}", "knn": {"vector": "{vector}"}}

A text that is nothing but `{size}`, `{from}` or `{vector}` becomes a number, or a list of them; within a text a
placeholder becomes text. The template is parsed before it is filled, so no query can leave its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

NAMES: Final = ("query", "size", "from", "collection", "vector")
_PLACEHOLDER: Final = re.compile(r"\{(" + "|".join(NAMES) + r")\}")


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its placeholders' values."""
    if isinstance(template, dict):
        return {key: filled(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(each, values) for each in template]
    if not isinstance(template, str):
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    return values[whole[1]] if whole else _PLACEHOLDER.sub(lambda found: str(values[found[1]]), template)


def path_of(template: str, collection: str) -> str:
    """The path of a collection's search."""
    return template.replace("{collection}", quote(collection, safe=""))


def placeholders(template: Any) -> set[str]:
    """The names of the placeholders in it."""
    return {name for text in _texts(template) for name in _PLACEHOLDER.findall(text)}


def _texts(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, dict | list):
        for each in template.values() if isinstance(template, dict) else template:
            yield from _texts(each)
