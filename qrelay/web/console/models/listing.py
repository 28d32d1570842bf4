"""The list of versions, what serves in each slot, and what happened."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from qrelay.models.registry import Registry
from qrelay.models.registry.describe import event, verdict, versions
from qrelay.models.registry.rules import base_of
from qrelay.models.registry.state import RegistryStatus
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import Site, site_of

EVENTS: Final = 30
"""Of the history, the latest."""


def registry_of(site: Site) -> Registry:
    """The installation's registry."""
    return Registry(site.settings.registry_folder)


def models(request: Request) -> Response:
    """Every version, or those of a slot, the latest first."""
    registry, slot = registry_of(site_of(request)), request.query_params.get("slot", "")
    at = registry.standing()
    return render(
        request, "models/list.html", folder=registry.folder, slot=slot, slots=at.slots, read_only=registry.read_only,
        rows=versions(registry, slot)[::-1], serving=[_served(at, name) for name, stack in at.stack.items() if stack],
        events=[event(each) for each in registry.history()[-EVENTS:]][::-1],
    )  # fmt: skip


def _served(at: RegistryStatus, slot: str) -> dict[str, Any]:
    """What a slot serves, and what it can go back to: (version or "", the gate's verdict or what "" means)."""
    stack = at.stack[slot]
    targets = [{"version": each, "gate": verdict(at.versions[each].gate)} for each in stack[-2::-1]]
    gate = verdict(at.versions[stack[-1]].gate)
    return {"slot": slot, "version": stack[-1], "gate": gate, "targets": targets, "base": base_of(slot)}


ROUTES = [route("/models", models)]
