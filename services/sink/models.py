"""The gRPC servicer's part about training and models: start a training, list versions, promote, roll back.

The core it calls is the ledger's trigger by hand and the registry of `qrelay.models.registry`, which the trainer, the
retriever and the reranker share.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from qrelay.jobs.permission import start_training
from qrelay.labels.ledger.audit_log import audited
from qrelay.labels.permission import Allowed
from qrelay.models.registry import Registry, State, VersionState
from qrelay.models.registry.slots import require_slot
from qrelay.runtime.servicer import Servicer
from qrelay.security.identity import Kind, acting
from qrelay.v1 import sink_pb2 as pb
from qrelay.v1 import sink_pb2_grpc as pb_grpc

_STATES = {
    State.CANDIDATE: pb.MODEL_STATE_CANDIDATE,
    State.PROMOTED: pb.MODEL_STATE_PROMOTED,
    State.REJECTED: pb.MODEL_STATE_REJECTED,
    State.RETIRED: pb.MODEL_STATE_RETIRED,
}
_NOBODY = "grpc"
"""Who decided, in the history, where a request does not say."""


class ModelsServicer(Servicer, pb_grpc.SinkServiceServicer):
    """Four calls of the sink's service; `SinkServicer` has the others."""

    info_response = pb.SinkServiceGetInfoResponse

    async def StartTraining(self, request: pb.StartTrainingRequest, context: Any) -> pb.StartTrainingResponse:
        """A trigger by hand, as `qrelay training run`."""
        allowed = Allowed(request.unmeasured, request.unqualified)
        made = await asyncio.to_thread(
            start_training, self._context.core.ledger, request.collection, self._context.settings, allowed
        )
        return pb.StartTrainingResponse(trigger=made.trigger_no, change_no=made.change_no, job=made.job_name)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Every version with its state."""
        return await asyncio.to_thread(_listed, self._registry(), request.slot)

    async def PromoteModel(self, request: pb.PromoteModelRequest, context: Any) -> pb.PromoteModelResponse:
        """Only what the gate passed against what serves."""
        return pb.PromoteModelResponse(changed=await asyncio.to_thread(self._promote, request))

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: Any) -> pb.RollbackModelResponse:
        """To the version before, or to `to`."""
        return pb.RollbackModelResponse(version=await asyncio.to_thread(self._roll_back, request))

    def _promote(self, request: pb.PromoteModelRequest) -> bool:
        with audited(self._context.core.ledger, "promote", request.version) as told:
            return told.did(self._registry().promote(request.version, by=_by(request), reason=request.reason))

    def _roll_back(self, request: pb.RollbackModelRequest) -> str:
        to = request.to if request.HasField("to") else None
        with audited(self._context.core.ledger, "roll back", request.slot):
            return self._registry().rollback(request.slot, to=to, by=_by(request), reason=request.reason)

    def _registry(self) -> Registry:
        return Registry(self._context.settings.registry_folder)


def _by(request: pb.PromoteModelRequest | pb.RollbackModelRequest) -> str:
    """Who decides: who calls, where that is known; else whom the request names."""
    caller = acting.get()
    return caller.name if caller and caller.kind is Kind.PERSON else request.by or _NOBODY


def _listed(registry: Registry, slot: str) -> pb.ListModelsResponse:
    at, taints = registry.standing(), registry.taints()
    if slot:
        require_slot(slot, at.slots)
    models = [
        _model(registry, found, at.serving(found.slot), taints.get(found.version, []))
        for found in at.versions.values()
        if slot in ("", found.slot)
    ]
    return pb.ListModelsResponse(models=models)


def _model(registry: Registry, found: VersionState, serving: str, tainted_by: list[str]) -> pb.ModelVersion:
    manifest = registry.manifest(found.version)
    created = Timestamp()
    created.FromMicroseconds(manifest.created_us)
    detail = found.gate.detail if found.gate else {}
    return pb.ModelVersion(
        version=found.version,
        slot=found.slot,
        state=_STATES[found.state],
        serving=found.version == serving,
        parent=manifest.parent,
        base=manifest.base,
        created_at=created,
        passed=detail.get("passed"),
        against=detail.get("against", ""),
        tainted_by=tainted_by,
        pruned=found.pruned,
        manifest_json=json.dumps(manifest.as_json(), ensure_ascii=False),
    )
