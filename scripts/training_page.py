"""The table of an experiment's fields in docs/training.md, generated from `qrelay.training.experiment`.

Used by check_generated.py; the page's own text stands around the markers and is written by hand.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from qrelay.training.experiment import EarlyStop, Experiment, Lora, Stage

BEGIN, END = "<!-- fields: generated -->", "<!-- end of fields -->"
_SECTIONS = (("", Experiment), ("stages[].", Stage), ("lora.", Lora), ("early_stop.", EarlyStop))


def filled(page: str) -> str:
    """The page with its table as the fields are now. Raises ValueError where the markers are not there."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"docs/training.md lost its markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """A row a field: name, default, what it is."""
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for prefix, model in _SECTIONS:
        rows += [
            f"| `{prefix}{name}` | {_default(field.get_default(call_default_factory=True))} | {field.description} |"
            for name, field in model.model_fields.items()
        ]
    return "\n".join(rows)


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, tuple) and isinstance(value[0], BaseModel):
        return "one stage"
    if isinstance(value, dict):
        return ", ".join(f"`{name}: {each:g}`" for name, each in value.items())
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
