"""`qrelay bench …` as users run it; the pipeline's account of every query when replicas are killed and drained."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay import wire
from qrelay.bench import pipeline as measuring
from qrelay.bench.data import Generated
from qrelay.bench.disturb import Disturbance, Limits, disturb, recovery_s
from qrelay.bench.report import read
from qrelay.bench.running import Plan, simulated
from qrelay.bench.targets.pipeline import JudgeQueueTarget, PipelineTarget
from qrelay.bench.targets.recorded import read_sets
from qrelay.bench.targets.services import ServiceTarget
from qrelay.bench.targets.tasks import end
from qrelay.cli.bench.options import Numbers, seconds
from qrelay.cli.bench.single import source_of
from qrelay.cli.main import qrelay
from qrelay.runtime.dead_letters import letter_subject
from tests.labels.builders import dead_letter
from tests.pipeline.harness import qrelay as run

DOUBLES = {**simulated({"retriever": 0.0, "reranker": 0.0, "judge": 0.01}), "OMP_NUM_THREADS": "1",
           "QRELAY_ALL__NATS__ACK_WAIT_S": "3", "QRELAY_ALL__WORKER__HEARTBEAT_S": "1"}  # fmt: skip


def bench(*arguments: str) -> Result:
    """In this process: for what ends before anything is measured."""
    return CliRunner().invoke(qrelay, ["bench", *arguments])


@pytest.fixture(scope="module")
def installation() -> Iterator[measuring.Installation]:
    """NATS, two judges and one of each other service."""
    with measuring.started(measuring.Shape(judges=2), Plan(environ=DOUBLES, queue=True)) as started:
        yield started


def as_it_must_be(account: dict[str, Any]) -> bool:
    """Every query was confirmed and committed, once; else the assertion names what else there was."""
    wrong = ("lost", "dead", "unconfirmed", "unconfirmed_ended", "of_others", "labelled_twice")
    assert {name: account[name] for name in wrong if account[name]} == {}
    assert account["sent"] == account["committed"] > 0
    return True


def address(installation: measuring.Installation, name: str) -> str:
    assert installation.fleet
    endpoint = installation.fleet.endpoint(name)
    assert endpoint
    return endpoint.grpc


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick benchmark of the judge."""
    folder = tmp_path_factory.mktemp("bench") / "judge"
    done = run("bench", "judge", "--service-time", "5ms", "--quick", "--concurrency", "1,4", "--rates", "30",
               "--window", "300ms", "--warm-up", "100ms", "--items-per-request", "2", "--out", str(folder), "--json",
               environ={"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "report.json").read_text())
    return folder


def test_a_benchmark_of_a_service_that_it_starts_leaves_a_report(judged: Path) -> None:
    report = read(judged)
    assert [level.key for level in report.levels] == [("closed", 1.0), ("closed", 4.0), ("open", 30.0)]
    for level in report.levels:
        assert level.items == 2 * level.requests > 0
        assert (level.failed, level.refused) == ({}, 0)
        assert level.usage["judge"].mean_batch >= 2  # calls at one time go together
        assert level.usage["judge"].cpu_seconds_per_1000 > 0
    assert {file.suffix for file in judged.iterdir()} >= {".json", ".md", ".png"}


def test_a_quick_look_at_a_double_says_that_it_is_one(judged: Path) -> None:
    report = read(judged)
    assert report.settings["quick"]
    assert report.settings["service"]["fake.service_time_s"] == 0.005
    assert any("quick look" in note for note in report.notes)
    assert any("simulated" in note for note in report.notes)
    assert str(judged.parent) not in (judged / "report.json").read_text()


def test_a_report_compares_with_itself_without_a_difference(judged: Path) -> None:
    done = bench("compare", str(judged), str(judged / "report.json"), "--json")
    found = json.loads(done.output)
    assert {row["verdict"] for row in found["rows"]} <= {"no difference shown", "not measured in both"}
    assert found["differing"] == []


async def test_what_was_sent_through_the_pipeline_is_in_the_ledger(installation: measuring.Installation) -> None:
    source = Generated("query", collection="through")
    async with PipelineTarget(installation.nats_url, installation.sink, source) as target:
        answers = await asyncio.gather(*(target.send(number) for number in range(60)))
        left, added = await target.settle(30), await target.added()
        account = measuring.accounting(target, left, added, None)
    assert sum(answer.ok for answer in answers) == account["sent"] == account["committed"] == added.queries == 60
    assert as_it_must_be(account)
    assert added.judgments == added.pairs == 60 * 25
    assert measuring.cached_share(installation.processes()) == 0.0
    assert measuring.duplicates(installation.processes()) is not None


async def test_the_recorded_sets_of_real_services_are_sent_again(
    installation: measuring.Installation, tmp_path: Path
) -> None:
    (tmp_path / "queries.txt").write_text("".join(f"how does thing {n} work?\n" for n in range(6)))
    places = [
        part for name in ("retriever", "reranker", "judge") for part in (f"--{name}", address(installation, name))
    ]
    done = await asyncio.to_thread(
        bench, "record", "--queries", str(tmp_path / "queries.txt"), "--collection", "docs", *places,
        "--out", str(tmp_path / "sets"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    kinds = {"reranker": "retrieved", "judge": "reranked", "sink": "judged"}
    for service, kind in kinds.items():
        sets = read_sets(tmp_path / "sets", kind)
        assert len(sets) == 6
        source: Any = type("Fixed", (), {"item": lambda _, n, sets=sets: sets[n]})()
        async with ServiceTarget(service, address(installation, service), source) as target:
            assert sum([(await target.send(number)).ok for number in range(6)]) == 6


def test_a_judge_that_is_measured_answers_nothing_from_a_cache(
    installation: measuring.Installation, tmp_path: Path
) -> None:
    (tmp_path / "queries.txt").write_text("how does it work?\n")
    places = [part for name in ("retriever", "reranker") for part in (f"--{name}", address(installation, name))]
    recorded = bench("record", "--queries", str(tmp_path / "queries.txt"), "--collection", "docs", *places,
                     "--out", str(tmp_path / "sets"))  # fmt: skip
    assert recorded.exit_code == 0, recorded.output
    done = run("bench", "judge", "--sets", str(tmp_path / "sets"), "--quick", "--concurrency", "1", "--rates", "none",
               "--window", "300ms", "--warm-up", "100ms", "--out", str(tmp_path / "judge"), "--json",
               environ={"OMP_NUM_THREADS": "1", "QRELAY_JUDGE__BACKEND": "fake"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["extra"]["judgments"]
    assert found["count"] > 25  # the one set, more than once
    assert found["cached_share"] == 0


def test_a_pipeline_whose_first_query_ends_as_a_dead_letter_says_why_and_what_to_do() -> None:
    doubles = {**simulated({"reranker": 0.0, "judge": 0.0}), "OMP_NUM_THREADS": "1"}
    done = run("bench", "pipeline", "--quick", environ=doubles)
    assert done.returncode != 0
    assert "retriever: unknown_collection: no index of the collection 'bench'" in done.stderr
    assert "QRELAY_RETRIEVER__INDEX_DIR" in done.stderr


async def test_replicas_killed_and_drained_under_load_lose_nothing(installation: measuring.Installation) -> None:
    assert installation.fleet
    plan = (Disturbance("kill", "judge", 2.0), Disturbance("drain", "judge", 6.0))
    limits = Limits(in_flight=200, warm_up_s=1.0, drain_s=30.0, grace_s=60.0, tail_s=4.0)
    source = Generated("query", collection="disturbed")
    async with PipelineTarget(installation.nats_url, installation.sink, source) as target:
        report = await disturb(installation.fleet, target, itertools.count(), plan, limits)
        account = measuring.accounting(target, await target.settle(60), await target.added(), None)
    assert as_it_must_be(account)
    killed, drained = report["events"]
    assert (killed["exit_code"], drained["exit_code"]) == (-9, 0)
    assert killed["successor"] != drained["successor"]
    assert drained["drained"]["held"] == drained["drained"]["finished"] + drained["drained"]["returned"]
    assert drained["held_at_signal"] is not None
    assert sum(report["commits_per_second"]) <= account["committed"]


async def test_a_sender_cut_between_the_stored_publication_and_its_confirmation_changes_no_account(
    installation: measuring.Installation,
) -> None:
    stored, confirmed = asyncio.Semaphore(0), asyncio.Event()
    source = Generated("query", collection="unconfirmed")
    async with PipelineTarget(installation.nats_url, installation.sink, source) as target:
        publish = target.broker.publish

        async def held(*message: Any) -> None:
            await publish(*message)
            stored.release()
            await confirmed.wait()

        target.broker.publish = held  # type: ignore[method-assign]
        senders = [asyncio.create_task(target.send(number)) for number in range(40)]
        for _ in senders:
            await stored.acquire()
        await end(senders)
        confirmed.set()
        account = measuring.accounting(target, await target.settle(60), await target.added(), None)
    assert as_it_must_be(account)
    assert account["sent"] == 40


async def test_a_sender_cut_when_its_query_has_just_ended_counts_it_once(
    installation: measuring.Installation,
) -> None:
    async with PipelineTarget(
        installation.nats_url, installation.sink, Generated("query", collection="ended")
    ) as target:
        senders = [asyncio.create_task(target.send(number)) for number in range(40)]
        while not target.commits:
            await asyncio.sleep(0)
        await end(senders)
        account = measuring.accounting(target, await target.settle(60), await target.added(), None)
    assert as_it_must_be(account)


async def test_what_is_never_confirmed_is_told_apart_from_what_is_lost(installation: measuring.Installation) -> None:
    source = Generated("query", collection="silent")
    async with PipelineTarget(installation.nats_url, installation.sink, source) as target:
        publish = target.broker.publish

        async def silent(*message: Any) -> None:
            await publish(*message)
            await asyncio.Event().wait()

        target.broker.publish = silent  # type: ignore[method-assign]
        senders = [asyncio.create_task(target.send(number)) for number in range(5)]
        while len(target.commits) < 5:
            await asyncio.sleep(target.poll_s)
        account = measuring.accounting(target, await target.settle(0), await target.added(), None)
        await end(senders)
    assert {name: account[name] for name in ("sent", "committed", "lost", "unconfirmed", "unconfirmed_ended")} == {
        "sent": 0, "committed": 5, "lost": 0, "unconfirmed": 5, "unconfirmed_ended": 5,
    }  # fmt: skip


async def test_why_a_query_failed_is_told_by_its_own_dead_letter_not_an_older_one(
    installation: measuring.Installation,
) -> None:
    source = Generated("query", collection="refused")
    own = wire.from_proto(source.item(0)).query_id
    async with PipelineTarget(installation.nats_url, installation.sink, source) as target:
        publish = target.broker.publish

        async def refuse(query_id: str) -> None:
            letter = dead_letter(
                f"of {query_id}",
                query_id,
                collection="refused",
                subject="qrelay.v1.refused.reranked",
                detail=query_id,
            )
            payload, headers = wire.encode(letter)
            await publish(letter_subject(letter), payload, headers, letter.dead_letter_id)

        async def refused(*_: Any) -> None:
            await refuse(own)

        for number in range(3):
            await refuse(f"another-{number}")
        target.broker.publish = refused  # type: ignore[method-assign]
        answer = await target.send(0)
    assert answer.failed == {"dead_letter": 1}
    assert target.errors == {"dead_letter": f"judge: backend_timeout: {own}"}


async def test_the_judge_alone_answers_through_its_queue() -> None:
    with measuring.Fleet(Plan(environ=DOUBLES, queue=True)) as fleet:
        await asyncio.to_thread(fleet.start, ["judge"])
        async with JudgeQueueTarget(fleet.nats_url, Generated("reranked")) as target:
            answers = await asyncio.gather(*(target.send(number) for number in range(40)))
    assert (sum(answer.ok for answer in answers), [dict(answer.failed) for answer in answers]) == (40, [{}] * 40)


async def test_idle_cost_is_told_for_every_process(installation: measuring.Installation) -> None:
    rows = await measuring.idle(installation.processes, 0.5)
    assert {row["process"] for row in rows} == set(installation.processes())
    assert all(row["percent of a core"] >= 0 for row in rows)


def commits(*stretches: tuple[float, float, float]) -> list[float]:
    """Evenly spaced commits: (from, to, a second)."""
    return [first + i / rate for first, last, rate in stretches for i in range(int((last - first) * rate))]


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        pytest.param([(0, 30, 100)], 0.0, id="it never fell"),
        pytest.param([(0, 10, 100), (13, 30, 100)], 3.0, id="nothing for three seconds"),
        pytest.param([(0, 10, 100), (10, 14, 50), (14, 30, 100)], 4.0, id="half for four seconds"),
        pytest.param([(0, 10, 100), (12, 30, 97)], 2.0, id="back within five percent"),
        pytest.param([(0, 10, 100), (10, 30, 70)], None, id="never back"),
        pytest.param([(0, 10, 100)], None, id="silent for good"),
    ],
)
def test_recovery_is_when_throughput_is_back_for_good(
    stretches: list[tuple[float, float, float]], expected: float | None
) -> None:
    assert recovery_s(commits(*stretches), (0.0, 10.0), 10.0, 30.0) == pytest.approx(expected, abs=0.26)


def test_bursts_as_before_are_no_fall() -> None:
    bursts = [second * 0.64 for second in range(50) for _ in range(32)]
    assert recovery_s(bursts, (0.0, 10.0), 10.0, 30.0) == 0.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("judge", "--rates", "fast"), "numbers above 0"),
        (("judge", "--concurrency", "1,2.5"), "whole numbers"),
        (("judge", "--concurrency", "0"), "above 0"),
        (("judge", "--window", "5 parsecs"), "write 20ms"),
        (("judge", "--sets", "absent.zst"), "does not exist"),
        (("judge", "--address", "here:1", "--service-time", "1ms"), "leave them or --address out"),
        (("judge", "--metrics", "http://here"), "--address"),
        (("pipeline", "--nats", "nats://here"), "--sink"),
        (("pipeline", "--disturb", "tickle:judge@3s"), "kill:judge@10s"),
        (("pipeline", "--disturb", "kill:judge"), "kill:judge@10s"),
        (("pipeline", "--service-time", "judge=soon"), "judge=20ms"),
        (("pipeline", "--scale", "1,many"), "whole numbers"),
        (("record", "--collection", "docs", "--retriever", "x:1", "--out", "o"), "--queries"),
        (("compare", "absent", "absent"), "does not exist"),
    ],
)
def test_bad_input_is_a_usage_error_that_says_what_to_write(arguments: tuple[str, ...], says: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.output.split())


def test_a_service_that_does_not_answer_ends_the_run_with_a_clear_error(tmp_path: Path) -> None:
    done = run("bench", "sink", "--address", "127.0.0.1:1", "--quick", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "no sink answers at 127.0.0.1:1" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_first_request_that_fails_ends_the_run_and_says_what_to_give(tmp_path: Path) -> None:
    done = run("bench", "retriever", "--quick", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"),
               environ={"QRELAY_RETRIEVER__EMBEDDER": "hash"})  # fmt: skip
    assert done.returncode == 1
    assert "nothing was measured: unknown_collection" in done.stderr
    assert "--service-time" in done.stderr


def test_real_queries_are_sent_in_order_and_the_ledgers_get_new_ids(tmp_path: Path) -> None:
    file = tmp_path / "queries.tsv"
    file.write_text("q1\tfirst?\nq2\tsecond?\n")
    source = source_of("retriever", 1, "docs", file, None)
    assert [source.item(n).query_id for n in range(3)] == ["q1", "q2", "q1"]
    assert {source.item(n).collection for n in range(2)} == {"docs"}
    assert source_of("sink", 1, "docs", None, None).item(0).candidate_set.query.query_id.startswith("b")


def test_durations_and_numbers_are_read_as_people_write_them() -> None:
    assert [seconds(text) for text in ("20ms", "5s", "2m", "1.5")] == [0.02, 5.0, 120.0, 1.5]
    assert Numbers("1,2", "auto").convert("1,2.5", None, None) == (1.0, 2.5)
    assert Numbers("1,2", "auto").convert("auto", None, None) == "auto"
