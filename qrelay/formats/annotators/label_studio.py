"""Label Studio: `tasks.json` to import, `labels.xml` as the project's configuration, and its JSON export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from qrelay.files import AtomicFiles
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.annotators.fields import grade, ids, mapping, pair_id, several, shown, text
from qrelay.formats.lines import BadRecord

SIGN: Final = "annotations"
_CONFIGURATION: Final = """\
<View>
  <Header value="Query"/>
  <Text name="query" value="$query"/>
  <Header value="Passage"/>
  <Text name="title" value="$title"/>
  <Text name="text" value="$text"/>
  <Choices name="grade" toName="text" choice="single" required="true" showInline="true">
{choices}
  </Choices>
  <TextArea name="note" toName="text" placeholder="Why (optional)" maxSubmissions="1"/>
</View>
"""


def write(folder: Path, pairs: Sequence[GradedPair], scale: tuple[int, int]) -> None:
    """A task a pair, and the configuration with a choice for each grade; both or neither. Raises OSError."""
    low, high = scale
    choices = "\n".join(f'    <Choice value="{grade}"/>' for grade in range(low, high + 1))
    tasks = [
        {"data": {"pair": pair_id(each), "query_id": each.query_id, "passage_id": each.passage_id, **shown(each)}}
        for each in pairs
    ]
    with AtomicFiles() as files:
        files.open(folder / "tasks.json").write(json.dumps(tasks, ensure_ascii=False, indent=1).encode())
        files.open(folder / "labels.xml").write(_CONFIGURATION.format(choices=choices).encode())
        files.commit()


def rows(tasks: Sequence[object]) -> Iterator[Callable[[], Mapping[str, str]]]:
    """A row an annotation, of each task the latest last; one without a grade for a task without annotations."""
    for number, task in enumerate(tasks, 1):
        found = several(task.get("annotations")) if isinstance(task, dict) else []
        for each in sorted(found, key=_changed) or [{}]:
            yield partial(_row, number, task, each)


def _changed(annotation: object) -> str:
    """Times are in ISO 8601, all of one form."""
    return text(annotation.get("updated_at")) if isinstance(annotation, dict) else ""


def _row(number: int, task: object, annotation: object) -> dict[str, str]:
    told = mapping(task, f"item {number}")
    where = f"task {text(told.get('id')) or number}"
    found = ids(mapping(told.get("data"), f"{where}: data"), f"{where}: data")
    made = mapping(annotation, f"{where}: an annotation")
    where += f", annotation {text(made.get('id')) or '?'}"
    results = {} if made.get("was_cancelled") else _results(made, where)
    note = " ".join(filter(None, map(text, several(results.get("note", {}).get("text")))))
    return {**found, "grade": _grade(results.get("grade", {}), where), "author": _author(made), "note": note}


def _results(annotation: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    """name of the control -> what the person set there."""
    found = [mapping(each, f"{where}: a result") for each in several(annotation.get("result"))]
    return {text(each.get("from_name")): mapping(each.get("value"), f"{where}: a value") for each in found}


def _grade(value: Mapping[str, Any], where: str) -> str:
    """Of choices, a rating or a number; "" where there is none."""
    for kind in ("choices", "rating", "number"):
        if kind in value:
            found = value[kind] if isinstance(value[kind], list) else [value[kind]]
            if len(found) > 1:
                raise BadRecord(f"{where}: {len(found)} choices: a pair has one grade")
            return "".join(grade(each, where) for each in found)
    return ""


def _author(annotation: Mapping[str, Any]) -> str:
    """The person's address where the export has it, else their number there; "" where it names nobody."""
    by = annotation.get("completed_by")
    known = text(by.get("email")) or text(by.get("id")) if isinstance(by, dict) else text(by)
    return known if "@" in known or not known else f"label-studio-{known}"
