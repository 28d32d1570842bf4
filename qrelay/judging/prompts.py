"""Prompts that stand in a file of `rubrics/`: name, version, and parts of named templates, one hash over all of it.

Templates are filled by `str.format`: `{query}`; a brace is written twice. What is filled in is data, which the caller
makes harmless or delimits (`strategies/hygiene.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.grading import labels
from qrelay.judging.strategies.rubric import documents
from qrelay.llm.exchange import Chat, Prompt
from qrelay.scales import Scale


@dataclass(frozen=True, slots=True)
class Prompts:
    """hash: of every word of the file's fields, and of how data is made harmless."""

    name: str
    version: str
    parts: Mapping[str, Mapping[str, str]]
    hash: str

    def chat(self, part: str, max_tokens: int, **values: str) -> Chat:
        """The part's `system` and `user`, for a reply in words. values: delimited or harmless already."""
        own = self.parts[part]
        return Chat((("system", own["system"]), ("user", own["user"].format(**values))), max_tokens)

    def prompt(
        self, part: str, scale: Scale, raw: tuple[str, str], shared: Mapping[str, str], each: Mapping[str, str]
    ) -> Prompt:
        """The part's `system`, `shared` and `each`, for a grade on `scale`; questions of the same shared values begin
        alike. Values are delimited or harmless already. raw: the texts that are compared, for fakes."""
        own = self.parts[part]
        question, evidence = own["shared"].format(**shared), own["each"].format(**shared, **each)
        return Prompt(own["system"], question, evidence, labels(scale), *raw)


@lru_cache
def shipped(name: str) -> Prompts:
    """The prompts of `rubrics/NAME.yaml`."""
    told = documents()[name]
    parts = {key: value for key, value in told.items() if key not in ("name", "version")}
    fields = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return Prompts(told["name"], told["version"], parts, digest(hygiene.VERSION, fields))
