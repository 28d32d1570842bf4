"""Promote and roll back: by the registry's rules, as `qrelay models promote` and `rollback`.

A form repeats what its page showed, the gate's verdict or what served, and that the person read it. Where something
else holds by then, nothing changes and the page is to be read again.
"""

from __future__ import annotations

from urllib.parse import urlencode

import anyio.to_thread
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from qrelay.errors import InputError
from qrelay.labels.ledger.audit_log import audited
from qrelay.web.console.models.listing import registry_of
from qrelay.web.pages import form, whole_number
from qrelay.web.routes import route
from qrelay.web.security import Action, decider
from qrelay.web.site import Site, site_of


async def model_promote(request: Request) -> Response:
    """Lets a version serve that passed the gate against what serves."""
    fields, by = await form(request), decider(request)
    version = _text(fields, "version")
    await anyio.to_thread.run_sync(_promote, site_of(request), fields, by)
    return RedirectResponse(f"/model?{urlencode({'version': version})}", 303)


async def model_rollback(request: Request) -> Response:
    """Lets a slot go back to what served before."""
    fields, by = await form(request), decider(request)
    await anyio.to_thread.run_sync(_rollback, site_of(request), fields, by)
    return RedirectResponse("/models", 303)


def _promote(site: Site, fields: FormData, by: str) -> None:
    version, registry = _text(fields, "version"), registry_of(site)
    _require_read(fields, "the gate's verdict")
    read = whole_number(_text(fields, "gate") or "0", "gate")  # events are numbered from 1; 0: there was none
    with audited(site.ledger(), "promote", version):
        registry.promote(version, by=by, reason=_text(fields, "reason"), read=read)


def _rollback(site: Site, fields: FormData, by: str) -> None:
    slot, registry = _text(fields, "slot"), registry_of(site)
    _require_read(fields, "what the gate said of it")
    to, seen = _text(fields, "to") if "to" in fields else None, _text(fields, "serving")
    with audited(site.ledger(), "roll back", slot):
        registry.rollback(slot, to=to, by=by, reason=_text(fields, "reason"), instead_of=seen)


def _require_read(fields: FormData, what: str) -> None:
    if fields.get("read") != "1":
        raise InputError(f"tick that you have read {what}: nothing was changed")


def _text(fields: FormData, name: str) -> str:
    return str(fields.get(name, ""))


ROUTES = [
    route("/model/promote", model_promote, Action.OPERATE, ["POST"]),
    route("/models/rollback", model_rollback, Action.OPERATE, ["POST"]),
]
