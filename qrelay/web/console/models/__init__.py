"""Trained versions: what serves, what the gate said, where each comes from; promoting and rolling back.

listing.py     versions, what serves, history
one.py         one version: its gate, its lineage
judgments.py   the judgments that a version was trained on
deciding.py    promote and roll back, by the registry's own rules
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from qrelay.web.console.models import deciding, judgments, listing, one

ROUTES: list[BaseRoute] = [*listing.ROUTES, *one.ROUTES, *judgments.ROUTES, *deciding.ROUTES]
