"""Argilla: a folder as `argilla.Dataset.from_disk` loads it, and records as its `records.to_json` writes them.

An export does not say which responses are drafts: export those that were submitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from qrelay.files import AtomicFiles
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.annotators.fields import grade, ids, mapping, pair_id, several, shown, text

SIGN: Final = "responses"


def write(folder: Path, pairs: Sequence[GradedPair], scale: tuple[int, int]) -> None:
    """A record a pair, with settings that ask for a grade and a note, as a dataset of the folder's name; all files or
    none. Raises OSError."""
    records = [
        {
            "id": pair_id(each), "fields": shown(each),
            "metadata": {"query_id": each.query_id, "passage_id": each.passage_id},
            "suggestions": {}, "responses": {}, "vectors": {},
        }
        for each in pairs
    ]  # fmt: skip
    with AtomicFiles() as files:
        documents = {".argilla/dataset.json": {"name": folder.name}, ".argilla/settings.json": _settings(*scale)}
        for file, document in {**documents, "records.json": records}.items():
            files.open(folder / file).write(json.dumps(document, ensure_ascii=False, indent=1).encode())
        files.commit()


def _settings(low: int, high: int) -> dict[str, Any]:
    options = [{"value": str(grade), "text": str(grade)} for grade in range(low, high + 1)]
    return {
        "guidelines": "How well does the passage answer the query? Read nothing else; grade it alone.",
        "allow_extra_metadata": True,
        "fields": [_field("query", True), _field("title", False), _field("text", False)],
        "questions": [
            {"name": "grade", "title": "Grade", "required": True,
             "settings": {"type": "label_selection", "options": options, "visible_options": None}},
            {"name": "note", "title": "Why", "required": False, "settings": {"type": "text", "use_markdown": False}},
        ],
        "metadata": [],
        "vectors": [],
    }  # fmt: skip


def _field(name: str, required: bool) -> dict[str, Any]:
    settings = {"type": "text", "use_markdown": False}
    return {"name": name, "title": name.title(), "required": required, "settings": settings}


def rows(records: Sequence[object]) -> Iterator[Callable[[], Mapping[str, str]]]:
    """A row a person's response to `grade`; one without a grade for a record without responses."""
    for number, record in enumerate(records, 1):
        for each in _responses(record, "grade") or [{}]:
            yield partial(_row, number, record, each)


def _responses(record: object, question: str) -> list[Any]:
    answered = record.get("responses") if isinstance(record, dict) else None
    return several(answered.get(question)) if isinstance(answered, dict) else []


def _row(number: int, record: object, response: object) -> dict[str, str]:
    told = mapping(record, f"item {number}")
    where = f"record {text(told.get('id')) or number}"
    found = ids(mapping(told.get("metadata"), f"{where}: metadata"), f"{where}: metadata")
    answer = mapping(response, f"{where}: a response")
    by = _by(answer)
    notes = [each.get("value") for each in _responses(record, "note") if isinstance(each, dict) and _by(each) == by]
    author = f"argilla-{by}" if by and by != "None" else ""
    return {**found, "grade": grade(answer.get("value"), where), "author": author, "note": " ".join(map(text, notes))}


def _by(response: Mapping[str, Any]) -> str:
    return text(response.get("user_id"))
