"""How often a caller may ask: counted by who they are, before anything of a call is read, in bounded memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qrelay.config import AccessSettings, Role, ServiceSettings
from qrelay.errors import ConfigError, RateExceeded
from qrelay.runtime import telemetry
from qrelay.runtime.client import channel, from_rpc_error, signed
from qrelay.security import rates
from qrelay.security.identity import ANYBODY, Kind, Principal
from qrelay.security.rates import Rates, place_of
from qrelay.security.tokens import add
from qrelay.settings import load_settings
from qrelay.v1 import judge_pb2, judge_pb2_grpc, sink_pb2, sink_pb2_grpc
from tests.client.judging import Judging, judge
from tests.security.certificates import SERVICE, client_credentials
from tests.security.test_roles import serving as every_rpc


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rates, "now", found)
    return found


def person(name: str) -> Principal:
    return Principal(name, Kind.PERSON)


def taken(limits: Rates, caller: Principal, peer: str = "", most: int = 1000) -> int:
    """Calls that it may make now."""
    for count in range(most):
        try:
            limits.take(caller, peer)
        except RateExceeded:
            return count
    return most


def test_after_as_many_calls_as_the_rate_says_a_caller_waits_for_the_next_and_nobody_else_does(clock: Clock) -> None:
    limits = Rates({"*": "5/hour"})
    assert taken(limits, person("ana")) == 5
    with pytest.raises(RateExceeded, match="person/ana may make 5 calls in 3600 s") as refused:
        limits.take(person("ana"), "")
    assert refused.value.retry_after_s == pytest.approx(720)
    assert taken(limits, person("ben")) == 5
    clock.seconds += 721
    assert taken(limits, person("ana")) == 1
    clock.seconds += 3600
    assert taken(limits, person("ana")) == 5, "what was not used is not saved up"


def test_of_several_rates_all_hold(clock: Clock) -> None:
    limits = Rates({"*": "3/second; 4/day"})
    assert taken(limits, person("ana")) == 3
    clock.seconds += 1
    assert taken(limits, person("ana")) == 1
    clock.seconds += 86_400
    assert taken(limits, person("ana")) == 3


def test_who_is_named_has_the_rate_of_their_line_and_a_persons_name_is_no_services(clock: Clock) -> None:
    limits = Rates({"ana": "7/hour", "service/trainer": "2/hour", "*": "1/hour"})
    assert taken(limits, person("ana")) == 7
    assert taken(limits, Principal("trainer", Kind.SERVICE)) == 2
    for other in (person("trainer"), person("service/trainer"), person("*"), Principal("ana", Kind.SERVICE)):
        assert taken(limits, other) == 1, other
    assert taken(Rates({"ana": "1/hour"}), person("ben")) == 1000
    assert taken(Rates({}), ANYBODY) == 1000


def test_one_whom_nobody_knows_is_their_address_and_an_ipv6_network_is_one(clock: Clock) -> None:
    limits = Rates({"*": "1/hour"})
    assert taken(limits, ANYBODY, "ipv4:10.0.0.1:5000") == 1
    assert taken(limits, ANYBODY, "ipv4:10.0.0.1:5001") == 0
    assert taken(limits, ANYBODY, "10.0.0.1") == 0
    assert taken(limits, ANYBODY, "ipv6:%5B::ffff:10.0.0.1%5D:5000") == 0
    assert taken(limits, ANYBODY, "ipv4:10.0.0.2:5000") == 1
    assert taken(limits, ANYBODY, "ipv6:[2001:db8:0:1::1]:5000") == 1
    assert taken(limits, ANYBODY, "2001:db8:0:1::2") == 0
    assert taken(limits, ANYBODY, "2001:db8:0:2::1") == 1
    assert place_of("unix:/run/x") == "unix:/run/x"


def test_a_flood_of_new_callers_takes_bounded_memory_and_forgets_nobody_who_is_limited(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_MOST", 100)
    limits = Rates({"*": "2/hour", "ana": "3/hour"})
    assert taken(limits, person("ben")) == 2
    allowed = sum(taken(limits, ANYBODY, f"10.0.{n // 250}.{n % 250}") for n in range(2_000))
    assert len(limits._known) == 100
    assert allowed == 99 * 2 + 2, "beyond those who are told apart, all share one rate"
    assert taken(limits, person("ben")) == 0
    assert taken(limits, person("ana")) == 3
    clock.seconds += 3600
    assert taken(limits, ANYBODY, "10.9.0.1") == 2, "who has the whole rate again makes room"
    assert len(limits._known) == 1


@pytest.mark.parametrize(
    "wrong", ["", "5", "5/week", "0/hour", "1.5/hour", "5/hour;", "5/hour, 1/day", "1000000/day"]
)
def test_a_rate_that_is_written_otherwise_stops_the_start_with_what_to_write(tmp_path: Path, wrong: str) -> None:
    settings = tmp_path / "qrelay.yaml"
    settings.write_text(f"all: {{access: {{rates: {{ana: '{wrong}'}}}}}}\n")
    with pytest.raises(ConfigError, match=r"all\.access\.rates\.ana: .* is no rate: write calls/period"):
        load_settings(ServiceSettings, "judge", file=settings, data_dir=tmp_path)


# -- a real server


async def _judge(address: str, token: str = "") -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(address) as opened:
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        call = judge_pb2_grpc.JudgeServiceStub(opened).Judge(judge_pb2.JudgeRequest(), metadata=metadata)
        return await call.code()


OK, REFUSED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_sixth_call_of_a_person_is_refused_and_another_persons_is_not(tmp_path: Path, clock: Clock) -> None:
    tokens = {name: add(tmp_path / "t.yaml", name, [Role.LABELLER], 1)[0] for name in ("ana", "ben", "eve")}
    access = AccessSettings(tokens=tmp_path / "t.yaml", rates={"*": "5/hour", "eve": "1/hour"})
    before = {line: telemetry.RATE_LIMITED.labels(line)._value.get() for line in ("*", "eve")}
    with judge(Judging(), access) as address:
        assert [await _judge(address, tokens["ana"]) for _ in range(6)] == [OK] * 5 + [REFUSED]
        assert [await _judge(address, tokens["ben"]) for _ in range(6)] == [OK] * 5 + [REFUSED]
        assert [await _judge(address, tokens["eve"]) for _ in range(2)] == [OK, REFUSED]
        clock.seconds += 3600
        assert await _judge(address, tokens["ana"]) is OK
    counted = {line: telemetry.RATE_LIMITED.labels(line)._value.get() - before[line] for line in before}
    assert counted == {"*": 2, "eve": 1}


async def test_a_refusal_says_when_to_come_again_to_us_and_to_grpcs_own_retries(clock: Clock) -> None:
    with judge(Judging(), AccessSettings(rates={"*": "1/hour"})) as address:
        assert await _judge(address) is OK
        async with grpc.aio.insecure_channel(address) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await judge_pb2_grpc.JudgeServiceStub(opened).Judge(judge_pb2.JudgeRequest())
    error = from_rpc_error(address, refused.value)
    assert isinstance(error, RateExceeded) and error.retry_after_s == pytest.approx(3600)
    assert dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"] == "3600000"


async def test_who_is_not_known_is_limited_by_address_before_they_are_refused_for_it(
    tmp_path: Path, clock: Clock
) -> None:
    add(tmp_path / "t.yaml", "ana", [Role.LABELLER], 1)
    access = AccessSettings(tokens=tmp_path / "t.yaml", rates={"*": "2/hour"})
    with judge(Judging(), access) as address:
        found = [await _judge(address, f"qrelay_{n}") for n in range(3)]
    assert found == [grpc.StatusCode.UNAUTHENTICATED] * 2 + [REFUSED]


async def test_the_rate_comes_before_the_role_and_before_the_request_is_parsed(tmp_path: Path, clock: Clock) -> None:
    token, _ = add(tmp_path / "t.yaml", "ana", [Role.READER], 1)
    access = AccessSettings(tokens=tmp_path / "t.yaml", rates={"*": "1/hour"})
    with judge(Judging(), access) as address:
        assert await _judge(address, token) is grpc.StatusCode.PERMISSION_DENIED
        assert await _judge(address, token) is REFUSED
    with judge(Judging(), AccessSettings(rates={"*": "1/hour"})) as address:
        async with grpc.aio.insecure_channel(address) as opened:
            raw = opened.unary_unary("/qrelay.v1.JudgeService/Judge")
            assert await raw(b"\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await raw(b"\xff").code() is REFUSED


async def test_a_service_is_limited_by_its_certificates_name(clock: Clock) -> None:
    access = AccessSettings(rates={"service/trainer": "2/hour"})
    async with every_rpc(access, tls=True) as address:
        async with grpc.aio.secure_channel(address, client_credentials("x", SERVICE + "trainer")) as opened:
            stub = sink_pb2_grpc.SinkServiceStub(opened)
            codes = [await stub.GetStats(sink_pb2.GetStatsRequest()).code() for _ in range(3)]
    assert codes == [grpc.StatusCode.INTERNAL] * 2 + [REFUSED], "that server's calls fail once they are reached"


async def test_health_and_get_info_are_not_counted(clock: Clock) -> None:
    with judge(Judging(), AccessSettings(rates={"*": "1/hour"})) as address:
        async with grpc.aio.insecure_channel(address) as opened:
            for _ in range(5):
                await judge_pb2_grpc.JudgeServiceStub(opened).GetInfo(judge_pb2.JudgeServiceGetInfoRequest())
                await health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest())
        assert await _judge(address) is OK


async def _streamed(address: str, count: int) -> tuple[int, grpc.StatusCode]:
    """Answers to so many messages of one stream, and how it ended. gRPC's asyncio loses the status of a stream whose
    end meets a write (https://github.com/grpc/grpc/issues/36066): so the last is written alone."""
    async with grpc.aio.insecure_channel(address) as opened:
        call = judge_pb2_grpc.JudgeServiceStub(opened).StreamJudge()
        answers = 0
        try:
            for _ in range(count):
                await call.write(judge_pb2.StreamJudgeRequest())
                if await call.read() is grpc.aio.EOF:
                    break
                answers += 1
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        return answers, await call.code()


async def test_each_message_of_a_stream_is_a_call(clock: Clock) -> None:
    with judge(Judging(), AccessSettings(rates={"*": "5/hour"})) as address:
        assert await _streamed(address, 3) == (3, OK)
        assert await _streamed(address, 3) == (2, REFUSED)
        assert await _judge(address) is REFUSED


async def test_a_stream_waits_for_its_turn_where_that_is_short(clock: Clock) -> None:
    with judge(Judging(), AccessSettings(rates={"*": "100/second"})) as address:
        assert await _streamed(address, 110) == (110, OK)
        assert await _judge(address) is REFUSED


def test_a_command_waits_as_it_is_told_and_gets_all_of_its_answers(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.seconds += seconds

    monkeypatch.setattr("qrelay.runtime.client.time", SimpleNamespace(sleep=sleep))
    with judge(Judging(), AccessSettings(rates={"*": "5/minute"})) as address:
        with channel(address) as opened:
            stub = signed(judge_pb2_grpc.JudgeServiceStub(opened))
            assert len([stub.Judge(judge_pb2.JudgeRequest(), timeout=60) for _ in range(12)]) == 12
        assert waited == [pytest.approx(12)] * 7
        with pytest.raises(RateExceeded, match="ask again in 12 s"), channel(address) as opened:
            signed(judge_pb2_grpc.JudgeServiceStub(opened)).Judge(judge_pb2.JudgeRequest(), timeout=10)
