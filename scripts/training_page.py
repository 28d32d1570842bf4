"""The table of an experiment's fields in docs/training.md, generated from `qrelay.training.experiment`.

Used by check_generated.py; the page's own text stands around the markers and is written by hand.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from qrelay.training.experiment import EarlyStop, Experiment, Lora, Stage
from scripts.marked import filled

BEGIN, END = "<!-- fields: generated -->", "<!-- end of fields -->"
_SECTIONS = (("", Experiment), ("stages[].", Stage), ("lora.", Lora), ("early_stop.", EarlyStop))


def page(text: str) -> str:
    """docs/training.md with its table as the fields are now."""
    return filled(text, BEGIN, END, table())


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
