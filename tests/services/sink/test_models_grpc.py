"""The sink's gRPC endpoint for training and the model registry, through a real channel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry
from qrelay.settings.training import TrainingSettings
from qrelay.v1 import sink_pb2 as pb
from tests.conftest import LONG_S
from tests.labels.builders import judged_set
from tests.models.registry.models import passed, published
from tests.services.sink.test_grpc import ingest, serving


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """(status, message, reason) of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None and status.details[0].Unpack(info)
    return caught.value.code(), str(caught.value.details()), info.reason


async def test_versions_are_listed_promoted_and_rolled_back(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    async with serving(tmp_path) as (stub, _):
        assert not (await stub.ListModels(pb.ListModelsRequest(), timeout=LONG_S)).models
        first = passed(registry, published(registry, "a"))
        other = published(registry, "b", slot=CROSS_ENCODER)
        asked = pb.PromoteModelRequest(version=first, by="ana", reason="better")
        assert (await stub.PromoteModel(asked, timeout=LONG_S)).changed
        assert not (await stub.PromoteModel(asked, timeout=LONG_S)).changed
        one, two = (await stub.ListModels(pb.ListModelsRequest(), timeout=LONG_S)).models
        assert (one.version, one.slot, one.serving, one.passed) == (first, BI_ENCODER, True, True)
        assert one.state == pb.MODEL_STATE_PROMOTED
        assert (two.version, two.serving, two.HasField("passed")) == (other, False, False)
        assert json.loads(one.manifest_json) == registry.manifest(first).as_json()
        (listed,) = (await stub.ListModels(pb.ListModelsRequest(slot=CROSS_ENCODER), timeout=LONG_S)).models
        assert listed.version == other
        back = pb.RollbackModelRequest(slot=BI_ENCODER, by="ana", reason="slower")
        assert (await stub.RollbackModel(back, timeout=LONG_S)).version == ""
    assert registry.serving(BI_ENCODER) is None
    assert [(event.kind, event.by) for event in registry.history()[-2:]] == [
        ("promoted", "ana"),
        ("rolled_back", "ana"),
    ]


@pytest.mark.parametrize("version", ["../../x", "..", ".", "", "/etc", "a/b", "x\0", "v" * 300, "vers\u00efon"])
async def test_a_name_that_no_version_can_have_is_not_found_and_nothing_is_read_for_it(
    tmp_path: Path, version: str
) -> None:
    registry = Registry(tmp_path / "registry")
    outside = tmp_path / "x"
    outside.mkdir()
    made = registry.folder / "versions" / published(registry, "a") / "manifest.json"
    (outside / "manifest.json").write_bytes(made.read_bytes())
    async with serving(tmp_path) as (stub, _):
        code, text, reason = await refused(stub.PromoteModel(pb.PromoteModelRequest(version=version), timeout=LONG_S))
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_VERSION")
        assert "called so" in text


async def test_a_refused_promotion_or_rollback_is_a_failed_precondition_that_says_why(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    version = published(registry, "a")
    async with serving(tmp_path) as (stub, _):
        code, words, reason = await refused(
            stub.PromoteModel(pb.PromoteModelRequest(version=version), timeout=LONG_S)
        )
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PROMOTABLE")
        assert "not been through the gate" in words
        code, words, _ = await refused(stub.RollbackModel(pb.RollbackModelRequest(slot=BI_ENCODER), timeout=LONG_S))
        assert (code, "nothing is promoted" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_what_is_not_there_is_not_found_and_no_slot_is_invalid(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        code, words, reason = await refused(stub.PromoteModel(pb.PromoteModelRequest(version="nope"), timeout=LONG_S))
        assert (code, reason, "nope" in words) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_VERSION", True)
        for call in (
            stub.ListModels(pb.ListModelsRequest(slot="reader"), timeout=LONG_S),
            stub.RollbackModel(pb.RollbackModelRequest(slot="reader"), timeout=LONG_S),
        ):
            code, words, _ = await refused(call)
            assert (code, "bi_encoder" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_tainted_versions_say_so(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    version = passed(registry, published(registry, "a", judge="j9"))
    registry.retract_judge("j9")
    async with serving(tmp_path) as (stub, _):
        (model,) = (await stub.ListModels(pb.ListModelsRequest(), timeout=LONG_S)).models
        assert list(model.tainted_by) == ["j9"]
        code, words, _ = await refused(stub.PromoteModel(pb.PromoteModelRequest(version=version), timeout=LONG_S))
        assert (code, "retracted" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_training_is_triggered_once_until_it_is_launched(tmp_path: Path) -> None:
    settings = TrainingSettings(command=("train", "{collection}"), unmeasured=True)
    async with serving(tmp_path, training=settings) as (stub, _):
        code, words, _ = await refused(stub.StartTraining(pb.StartTrainingRequest(collection="docs"), timeout=LONG_S))
        assert (code, "holds nothing" in words) == (grpc.StatusCode.NOT_FOUND, True)
        await ingest(stub, [judged_set()])
        made = await stub.StartTraining(pb.StartTrainingRequest(collection="docs"), timeout=LONG_S)
        assert (made.trigger, made.change_no) == (1, 1)
        assert "docs" in made.job
        code, words, _ = await refused(stub.StartTraining(pb.StartTrainingRequest(collection="docs"), timeout=LONG_S))
        assert (code, "is pending" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_without_a_command_there_is_nothing_to_start(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set()])
        code, words, _ = await refused(stub.StartTraining(pb.StartTrainingRequest(collection="docs"), timeout=LONG_S))
        assert (code, "sink.training.command" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_collections_own_slot_is_listed_promoted_and_rolled_back_to_the_default_slots_version(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path / "registry")
    default, own = published(registry, "a"), published(registry, "b", slot="bi_encoder:medquad")
    registry.promote(passed(registry, default))
    passed(registry, own, against=default)
    async with serving(tmp_path) as (stub, _):
        assert (await stub.PromoteModel(pb.PromoteModelRequest(version=own), timeout=LONG_S)).changed
        listed = (await stub.ListModels(pb.ListModelsRequest(slot="bi_encoder:medquad"), timeout=LONG_S)).models
        assert [(each.version, each.slot, each.serving) for each in listed] == [(own, "bi_encoder:medquad", True)]
        back = pb.RollbackModelRequest(slot="bi_encoder:medquad")
        assert (await stub.RollbackModel(back, timeout=LONG_S)).version == default
        _, text, _ = await refused(stub.ListModels(pb.ListModelsRequest(slot="bi_encodr:medquad"), timeout=LONG_S))
        assert "Did you mean 'bi_encoder:medquad'" in text
