"""Promote and roll back: by the registry's rules, as `qrelay models promote` and `rollback`.

A form repeats what its page showed, the gate's verdict or what served, and that the person read it. Where something
else holds by then, nothing changes and the page is to be read again.
"""

from __future__ import annotations

import logging
from urllib.parse import urlencode

import anyio.to_thread
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from qrelay.errors import InputError, QrelayError
from qrelay.labels.ledger.audit_log import audited
from qrelay.labels.ledger.ledger import Ledger
from qrelay.settings.secrets import masked
from qrelay.web.console.models.listing import registry_of
from qrelay.web.pages import form, whole_number
from qrelay.web.routes import route
from qrelay.web.security import Action, decider
from qrelay.web.site import Site, site_of

log = logging.getLogger(__name__)


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
    _require_read(fields, "the gate's verdict")
    version, reason = _text(fields, "version"), _text(fields, "reason")
    read = whole_number(_text(fields, "gate") or "0", "gate")  # events are numbered from 1; 0: there was none
    with audited(_ledger(site), "promote", version) as told:
        told.did(registry_of(site).promote(version, by=by, reason=reason, read=read))


def _rollback(site: Site, fields: FormData, by: str) -> None:
    _require_read(fields, "what the gate said of it")
    slot, reason = _text(fields, "slot"), _text(fields, "reason")
    to, seen = _text(fields, "to") if "to" in fields else None, _text(fields, "serving")
    with audited(_ledger(site), "roll back", slot):
        registry_of(site).rollback(slot, to=to, by=by, reason=reason, instead_of=seen)


def _ledger(site: Site) -> Ledger | None:
    """For the audit log. None: there is none or it does not answer, which stops no rollback: the registry's own
    history has the act too."""
    try:
        return site.ledger()
    except QrelayError as error:
        log.warning("not in the audit log: %s", masked(str(error)))
        return None


def _require_read(fields: FormData, what: str) -> None:
    if fields.get("read") != "1":
        raise InputError(f"tick that you have read {what}: nothing was changed")


def _text(fields: FormData, name: str) -> str:
    return str(fields.get(name, ""))


ROUTES = [
    route("/model/promote", model_promote, Action.OPERATE, ["POST"]),
    route("/models/rollback", model_rollback, Action.OPERATE, ["POST"]),
]
