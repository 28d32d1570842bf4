"""The judge beside people, to be read: a report dict becomes a page, two diagrams and JSON.

    {"title": str, "data": {"n", "queries", "relevant", "relevant_from", "sha256"},
     "systems": {name: see `qrelay.judging.qualification.systems`},
     "comparisons": [{"a", "b", "difference", "ci", "p"}],
     "verdicts": {name: {"positives" | "negatives" | "gate": {"verdict", "reason", "numbers"}}},
     "notes": [str]}

A figure that is None, nan or absent is shown as a dash and written as null. Needs matplotlib and jinja2, loaded when
a report is written.
"""

from qrelay.judging.report.warn import plain_warnings
from qrelay.judging.report.write import write_report

__all__ = ["plain_warnings", "write_report"]
