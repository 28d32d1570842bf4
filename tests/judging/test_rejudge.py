"""Judging again: what the ledger holds, through the configured judge, and back beside what is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import BackendUnavailable, BudgetExhausted, InputError, QrelayError
from qrelay.identity import judge_digest
from qrelay.judging.budget import Budget, Budgeted
from qrelay.judging.budget_settings import BudgetSettings
from qrelay.judging.cache import NoCache
from qrelay.judging.rejudge import Rejudged, count, rejudge
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.llm.fake import FakeBackend
from qrelay.runtime.context import ServiceContext
from qrelay.services.sink.service import SinkServicer
from qrelay.services.sink.sink import Sink, load_sink
from qrelay.types import CandidateSet, Graded, JudgedSet, Judgment
from qrelay.v1 import sink_pb2_grpc
from tests.judging.samples import COOKING, COPYTREE, LOCK, candidate_set, make_judge
from tests.serving import announce, serving


def one_set(number: int) -> CandidateSet:
    texts = (f"{COPYTREE} {number}", f"{LOCK} {number}", f"{COOKING} {number}")
    return candidate_set(*texts, sampled=[0, 1], query_id=f"q{number}")


def stored(count: int) -> Iterator[JudgedSet]:
    return (JudgedSet(one_set(number), ()) for number in range(count))


class Sent:
    """Where labels go: all are new; queries named in `refused` are not taken."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.judgments: list[Judgment] = []
        self.batches: list[int] = []

    async def __call__(self, judged: Sequence[JudgedSet]) -> list[int | QrelayError]:
        self.batches.append(len(judged))
        results: list[int | QrelayError] = []
        for each in judged:
            if each.candidate_set.query.query_id in self.refused:
                results.append(InputError("not in the ledger"))
            else:
                self.judgments += each.judgments
                results.append(len(each.judgments))
        return results


async def test_only_the_marked_passages_are_judged_and_every_label_is_sent() -> None:
    sent, seen = Sent(), []
    done = await rejudge(make_judge(), stored(5), sent, batch=2, progress=lambda each: seen.append(each.sets))
    assert (done.sets, done.pairs, done.labels, done.graded, done.added) == (5, 10, 10, 10, 10)
    assert {each.passage_id for each in sent.judgments} == {"d#0", "d#1"}
    assert sent.batches == [2, 2, 1]
    assert seen == [2, 4, 5]
    assert done.last_query_id == "q4"
    assert not done.stopped


async def test_a_failure_that_may_heal_is_counted_but_never_sent_and_the_cache_pays_for_the_rest(
    tmp_path: Path,
) -> None:
    judge = make_judge(FakeBackend(failure_rate=1.0), tmp_path / "c.sqlite")
    sent = Sent()
    done = await rejudge(judge, stored(2), sent)
    assert (done.missing, done.graded, done.added) == (4, 0, 0)
    assert sent.batches == []
    done = await rejudge(judge, stored(2), sent)
    assert (done.missing, done.graded, done.cached) == (0, 4, 0)
    done = await rejudge(judge, stored(2), sent)
    assert done.cached == 4


async def test_a_set_that_is_refused_is_named_and_the_others_go_on() -> None:
    done = await rejudge(make_judge(), stored(3), Sent("q1"))
    assert done.failed == [("q1", "not in the ledger")]
    assert done.added == 4


async def test_a_used_up_budget_ends_it_with_where_to_go_on() -> None:
    core = Budgeted(make_judge(), Budget(BudgetSettings(tokens_per_run=1), NoCache()))
    sent = Sent()
    done = await rejudge(core, stored(4), sent, batch=2)
    assert "budget used up" in done.stopped
    assert (done.sets, done.last_query_id, len(sent.judgments)) == (2, "q1", 4)


async def test_what_is_no_budget_is_raised() -> None:
    async def down(judged: Sequence[JudgedSet]) -> list[int | QrelayError]:
        raise BackendUnavailable("the sink is gone")

    with pytest.raises(BackendUnavailable):
        await rejudge(make_judge(), stored(1), down)
    assert not issubclass(BackendUnavailable, BudgetExhausted)


def test_counting_judges_nothing() -> None:
    assert count(stored(3)) == Rejudged(sets=3, pairs=6, last_query_id="q2")


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A real sink on a real gRPC server, announced in tmp_path, that holds three judged queries."""
    settings = SinkSettings(data_dir=tmp_path)
    core = load_sink(settings)
    context: ServiceContext[SinkSettings, Sink] = ServiceContext("sink", settings, "test")
    context.core = core
    with serving(
        "qrelay.v1.SinkService",
        lambda server: sink_pb2_grpc.add_SinkServiceServicer_to_server(SinkServicer(context), server),  # type: ignore[arg-type]
    ) as address:
        announce(tmp_path, "sink", address)
        yield core
    core.close()


async def fill(folder: Path) -> None:
    sets = await make_judge(strategy="binary").judge([one_set(n) for n in range(3)])
    ledger = Ledger.open(folder / "ledger.sqlite")
    ledger.commit([each for each in sets if isinstance(each, JudgedSet)])
    ledger.close()


def labels(folder: Path) -> list[Judgment]:
    ledger = Ledger.open(folder / "ledger.sqlite")
    with ledger.snapshot() as snapshot:
        found = [snapshot.judged_set("docs", f"q{n}") for n in range(3)]
    ledger.close()
    return [judgment for each in found if each for judgment in each.judgments]


def run(folder: Path, *arguments: str) -> Any:
    env = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_JUDGE__STRATEGY": "graded", "QRELAY_JUDGE__DATA_DIR": str(folder)}
    given = ["rejudge", "--collection", "docs", "--data-dir", str(folder), *arguments]
    return CliRunner().invoke(judge_command, given, env=env, catch_exceptions=False)


def test_the_command_adds_labels_beside_those_of_the_real_ledger(sink: Sink, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    before = labels(tmp_path)
    assert len(before) == 6
    told = json.loads(run(tmp_path, "--dry-run", "--json").stdout)
    assert (told["sets"], told["pairs"], told["dry_run"]) == (3, 6, True)
    assert labels(tmp_path) == before
    done = json.loads(run(tmp_path, "--json", "--batch", "2").stdout)
    assert (done["pairs"], done["graded"], done["added"], done["missing"]) == (6, 6, 6, 0)
    after = labels(tmp_path)
    assert [each for each in after if each.judge.strategy == "binary"] == before
    assert sum(each.judge.strategy == "graded" and isinstance(each.outcome, Graded) for each in after) == 6
    again = run(tmp_path)
    assert "(6 from the cache)" in again.stdout
    (judge,) = {judge_digest(each.judge) for each in after if each.judge.strategy == "graded"}
    assert f"judge {judge[:12]} (graded, " in again.stdout, "`qrelay audit --auditor` takes it"
    assert "0 are new" in again.stdout
    assert labels(tmp_path) == after


def test_all_batches_of_labels_go_through_one_connection(
    sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(tmp_path))
    opened: list[str] = []
    plain = grpc.aio.insecure_channel

    def counted(address: str, **options: Any) -> Any:
        opened.append(address)
        return plain(address, **options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", counted)
    assert json.loads(run(tmp_path, "--json", "--batch", "1").stdout)["added"] == 6
    assert len(opened) == 2, "one reads the sets, one sends the labels"


def test_where_and_after_choose_what_is_judged(sink: Sink, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    relevant = json.loads(run(tmp_path, "--where", "relevant", "--dry-run", "--json").stdout)
    irrelevant = json.loads(run(tmp_path, "--where", "grade=0", "--dry-run", "--json").stdout)
    assert relevant["pairs"] + irrelevant["pairs"] == 6
    assert json.loads(run(tmp_path, "--after", "q1", "--dry-run", "--json").stdout)["sets"] == 1
    with pytest.raises(InputError, match="where"):
        run(tmp_path, "--where", "beauty>3", "--dry-run")


def test_a_file_of_pairs_is_judged_and_nothing_else(sink: Sink, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    before = labels(tmp_path)
    passage_id = before[0].passage_id
    sample = tmp_path / "sample.tsv"
    rows = [f"{query_id}\t{passage_id}\t\ta query\ta title\ta text" for query_id in ("q0", "q2", "unknown")]
    sample.write_text("\n".join(["query_id\tpassage_id\tgrade\tquery\ttitle\ttext", *rows]) + "\n")
    done = json.loads(run(tmp_path, "--pairs", str(sample), "--json").stdout)
    assert (done["sets"], done["pairs"], done["added"]) == (2, 2, 2)
    added = [each for each in labels(tmp_path) if each.judge.strategy == "graded"]
    assert [each.passage_id for each in added] == [passage_id, passage_id]


def test_a_budget_that_ends_it_exits_3_and_says_where_to_go_on(sink: Sink, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    config = tmp_path / "qrelay.yaml"
    config.write_text("judge: {budget: {tokens_per_run: 1}}\n")
    result = run(tmp_path, "--config", str(config), "--batch", "1")
    assert result.exit_code == 3
    assert "continue with --after q0" in result.output
