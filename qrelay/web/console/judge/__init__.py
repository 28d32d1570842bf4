"""How far the judges can be trusted, and what a threshold of P(relevant) would take.

reports.py      reports on disk: verdicts, confusion, reliability
diagrams.py     the numbers of a diagram that the page draws as SVG
thresholds.py   positives and negatives over the ledger's labels
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from qrelay.web.console.judge import reports, thresholds

ROUTES: list[BaseRoute] = [*reports.ROUTES, *thresholds.ROUTES]
