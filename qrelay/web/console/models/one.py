"""One version: its manifest, the gate's table, whether it may serve, and what made it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from qrelay.errors import NotPromotable, QrelayError
from qrelay.labels.lineage.side import SinkLedger
from qrelay.models.registry import Registry
from qrelay.models.registry.describe import event, full_version, gate_rows, row
from qrelay.models.registry.lineage import ancestry, lineage
from qrelay.models.registry.rules import require_passed
from qrelay.models.registry.state import RegistryStatus
from qrelay.web.console.models.listing import registry_of
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import Site, site_of


def model(request: Request) -> Response:
    """The page of one version; the beginning of its name is enough."""
    site = site_of(request)
    registry = registry_of(site)
    version = full_version(registry, request.query_params.get("version", ""))
    at, taints = registry.standing(), registry.taints()
    found, tainted_by = at.versions[version], taints.get(version, [])
    line = row(registry.manifest(version), found, at.serving(found.slot), tainted_by)
    chain, cut_off = _chain(site, registry, version)
    return render(
        request, "models/one.html", line=line, folder=registry.model_dir(version), read_only=registry.read_only,
        gate=found.gate and event(found.gate), rows=gate_rows(found.gate),
        why_not=_why_not(at, version, tainted_by), instead_of=at.serving(found.slot),
        chain=chain, cut_off=cut_off,
    )  # fmt: skip


def _why_not(at: RegistryStatus, version: str, tainted_by: list[str]) -> str:
    """Why the registry would not promote the version; empty: it would."""
    try:
        require_passed(at, version, tainted_by)
    except NotPromotable as error:
        return str(error)
    return ""


def _chain(site: Site, registry: Registry, version: str) -> tuple[list[dict[str, Any]], str]:
    """The lineage, with the ledger's changes that each data file was made of (without counts, which read them all);
    and why it ends at the exports, where the ledger cannot be read."""
    steps: list[dict[str, Any]] = lineage(registry, version, None)["chain"]
    try:
        side = SinkLedger(site.ledger(), site.sink.rules)
        for step, manifest in zip(steps, ancestry(registry, version), strict=True):
            for shown, source in zip(step["data"], manifest.data, strict=True):
                if "collection" in source.manifest:
                    shown["covered"] = dict(side.covered(source))
    except QrelayError as error:
        return steps, str(error)
    return steps, ""


ROUTES = [route("/model", model)]
