"""Publishing: each change reaches the hub exactly once, whoever is killed when; what may not train waits, says so."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from rich.console import Console

from qrelay.cli.labels.publish import publish as publish_command
from qrelay.cli.top import render
from qrelay.errors import ConfigError, InputError
from qrelay.jobs.publisher import Publisher, standing_of
from qrelay.labels.exports.export import write_export
from qrelay.labels.exports.publishing import Increment, increments, parse_manifest, publish
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger.export_records import last_export
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.models import pushing
from qrelay.models.pushing import Repository
from qrelay.runtime import faults
from qrelay.runtime.overview import Look, summary
from qrelay.services.sink.service import work_beside
from qrelay.services.sink.sink import load_sink
from qrelay.types import Missing
from tests.conftest import eventually
from tests.jobs.publishing_process import REPO, made_settings
from tests.labels.builders import JUDGE, OTHER_JUDGE, graded, judged_set
from tests.labels.hub import TOKEN, Hub, running_hub
from tests.labels.hub import Repository as HubRepository
from tests.labels.test_overrides import add, said
from tests.labels.test_qualification import report_file, use

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub talks to, in this process too."""
    from huggingface_hub import constants

    with running_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name, value in {"HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        yield running


class Clock:
    """Of the ledger and of the publisher, set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite", clock=clock)
    yield ledger
    ledger.close()


def publisher(ledger: Ledger, folder: Path, clock: Clock, **publish: Any) -> Publisher:
    settings = made_settings(str(folder / "ledger.sqlite"), folder, **publish)
    return Publisher(ledger, settings, clock=clock.seconds)


def commit(ledger: Ledger, *query_ids: str, **fields: Any) -> None:
    """A change each."""
    for query_id in query_ids:
        ledger.commit([judged_set(query_id, prefix=f"{query_id}-", **fields)])


def chain(hub: Hub, collection: str = "docs", repo: str = REPO) -> list[Increment]:
    """The repository's increments. Each begins where the one before ended: each change is there, and once."""
    found = [each for each in increments(hub.repositories[repo].files) if each.collection == collection]
    assert [each.first for each in found] == [0, *(each.last for each in found)][: len(found)]
    return found


def rows(hub: Hub, repo: str = REPO) -> Counter[str]:
    """query_id -> rows with it, in every Parquet file."""
    import pyarrow.parquet

    files = (data for path, data in hub.repositories[repo].files.items() if path.endswith(".parquet"))
    return Counter(
        row["query_id"] for each in files for row in pyarrow.parquet.read_table(io.BytesIO(each)).to_pylist()
    )


def change_no(ledger: Ledger) -> int:
    return max(each.change_no for each in _queries(ledger))


def _queries(ledger: Ledger) -> list[Any]:
    import sqlalchemy as sa

    from qrelay.labels.ledger import schema

    with ledger.snapshot() as snapshot:
        return list(snapshot.connection.execute(sa.select(schema.queries.c.change_no)))


def recorded(ledger: Ledger) -> list[tuple[str, int, int]]:
    import sqlalchemy as sa

    from qrelay.labels.ledger import schema

    columns = schema.exports.c
    with ledger.snapshot() as snapshot:
        chosen = sa.select(columns.location, columns.from_change, columns.to_change).order_by(columns.to_change)
        return [tuple(row) for row in snapshot.connection.execute(chosen)]


def test_increments_reach_a_private_repository_that_datasets_can_read(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    import datasets

    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock)
    commit(held, "q1", "q2")
    at_work.step()
    commit(held, "q3")
    at_work.step()
    at_work.step()
    repository = hub.repositories[REPO]
    assert repository.private
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 2), (2, 3)]
    assert recorded(held) == [(f"hf:{REPO}", 0, 2), (f"hf:{REPO}", 2, 3)]
    assert rows(hub) == {"q1": 1, "q2": 1, "q3": 1}
    for path, data in repository.files.items():
        target = tmp_path / "clone" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    loaded = datasets.load_dataset(str(tmp_path / "clone"), "docs", split="train", cache_dir=str(tmp_path / "cache"))
    assert list(loaded["query_id"]) == ["q1", "q2", "q3"], "in the order of changes, so that the last row counts"
    assert f'load_dataset("{REPO}", "docs", split="train")' in repository.files["README.md"].decode()
    assert "changes up to 3 since 2026-03-01T12:00:00Z; nothing new" in at_work.details()["publish.docs"]


def test_a_query_that_is_judged_again_comes_again_whole_in_a_later_increment(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock, split="train=0.5,dev=0.5")
    commit(held, "q1", "q2")
    at_work.step()
    held.rejudge([judged_set("q1", prefix="q1-", judge=OTHER_JUDGE)])
    assert len(chain(hub)) == 1
    at_work.step()
    assert "was measured by nobody" in at_work.details()["publish.docs"], "the other judge's label counts, unmeasured"
    assert len(chain(hub)) == 1


def start(folder: Path, hub: Hub, *query_ids: str) -> subprocess.Popen[bytes]:
    (folder / "faults").mkdir(exist_ok=True)
    extra = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.jobs.publishing_process",
            str(folder / "ledger.sqlite"),
            str(folder),
            *query_ids,
        ],
        cwd=ROOT,
        env={**os.environ, **extra, faults.VARIABLE: str(folder / "faults")},
    )


def test_killed_at_each_point_in_turn_every_change_is_published_exactly_once(
    hub: Hub, held: Ledger, tmp_path: Path
) -> None:
    report_file(tmp_path)
    points = [*faults.PUBLISH_POINTS, "sink.export.rename", *faults.PUBLISH_POINTS]
    for number, point in enumerate(points):
        (tmp_path / "faults").mkdir(exist_ok=True)
        (tmp_path / "faults" / point).write_text("1")
        assert start(tmp_path, hub, f"q{number}").wait() == -signal.SIGKILL, point
        assert recorded(held)[-1:] != [(f"hf:{REPO}", 0, number + 1)], "the ledger does not know of it"
    assert start(tmp_path, hub, "last").wait() == 0
    found = chain(hub)
    assert found[-1].last == change_no(held) == len(points) + 1
    assert rows(hub) == {f"q{n}": 1 for n in range(len(points))} | {"last": 1}
    assert recorded(held) == [(f"hf:{REPO}", each.first, each.last) for each in found]
    assert len(hub.history) == len(found), "no commit but those"


def test_two_sinks_at_once_publish_every_change_exactly_once(hub: Hub, held: Ledger, tmp_path: Path) -> None:
    report_file(tmp_path)
    processes = [start(tmp_path, hub, *(f"q{n}{m}" for m in range(6))) for n in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    found = chain(hub)
    assert found[-1].last == change_no(held) == 12
    assert rows(hub) == {f"q{n}{m}": 1 for n in range(2) for m in range(6)}
    assert recorded(held) == [(f"hf:{REPO}", each.first, each.last) for each in found]


def test_who_is_overtaken_between_look_and_commit_sends_nothing_and_goes_on(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    settings = made_settings(str(tmp_path / "ledger.sqlite"), tmp_path)

    class Overtaken:
        """A hub where another sink publishes after this one looked, once; then a change follows."""

        def open_repository(self, repo: str, *, public: bool) -> Repository:
            found = pushing.open_repository(repo, public=public)
            if not hub.history:
                publish(held, "docs", settings)
                commit(held, "q2")
            return found

        read_file = staticmethod(pushing.read_file)
        push_folder = staticmethod(pushing.push_folder)

    commit(held, "q1")
    at_work = Publisher(held, settings, Overtaken(), clock.seconds)
    at_work.step()
    assert "was changed by somebody else meanwhile" in at_work.details()["publish.docs"]
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 1)]
    clock.pass_(minutes=1)
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 1), (1, 2)]
    assert rows(hub) == {"q1": 1, "q2": 1}


def test_what_qualification_refuses_waits_and_says_why_until_it_may(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    commit(held, "q1")
    at_work = publisher(held, tmp_path, clock)
    at_work.step()
    assert "waits since 2026-03-01T12:00:00Z" in at_work.details()["publish.docs"]
    assert "was measured by nobody" in at_work.details()["publish.docs"]
    report_file(tmp_path, negatives=use("not_qualified", "too many false negatives", {"npv": 0.7}))
    at_work = publisher(held, tmp_path, clock)
    at_work.step()
    assert "too many false negatives" in at_work.details()["publish.docs"]
    assert hub.asked("PUT", "/lfs/") == hub.asked("POST", "/commit/") == 0, "nothing left this machine"
    report_file(tmp_path)
    clock.pass_(minutes=20)
    at_work.step()
    assert rows(hub) == {"q1": 1}
    assert "waits" not in at_work.details()["publish.docs"]


def test_judgments_for_evaluation_are_published_whatever_is_known_of_their_judge(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    commit(held, "q1")
    publisher(held, tmp_path, clock, format="qrels").step()
    folder = chain(hub)[0].folder
    assert sorted(hub.repositories[REPO].files) == [f"{folder}/docs.qrels", f"{folder}/manifest.json"]


def test_so_many_labels_or_hours_make_it_due(hub: Hub, held: Ledger, tmp_path: Path, clock: Clock) -> None:
    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock, every_labels=7, every_hours=6)
    commit(held, "q1", "q2")
    at_work.step()
    assert hub.requests == [], "six labels of seven"
    assert (
        f"{REPO}: nothing yet; 6 new labels; next after 1 more or at 2026-03-01T18:00:00Z"
        in at_work.details()["publish.docs"]
    )
    commit(held, "q3")
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 3)]
    commit(held, "q4")
    clock.pass_(hours=5.9)
    at_work.step()
    assert len(chain(hub)) == 1
    clock.pass_(hours=0.2)
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 3), (3, 4)]
    asked = len(hub.requests)
    clock.pass_(hours=48)
    at_work.step()
    assert len(hub.requests) == asked, "nothing new, nothing asked"


def test_peoples_decisions_are_labels_too(hub: Hub, held: Ledger, tmp_path: Path, clock: Clock) -> None:
    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock)
    commit(held, "q1")
    at_work.step()
    add(held, said("q1-0#0", grade=0, query_id="q1"))
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 1), (1, 2)]
    found = json.loads(hub.repositories[REPO].files[f"{chain(hub)[1].folder}/manifest.json"])
    assert (found["overrides"], found["emptied"]) == (1, ["q1"])


def test_without_a_token_or_with_a_hub_that_fails_it_waits_longer_each_time(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_file(tmp_path)
    commit(held, "q1")
    at_work = publisher(held, tmp_path, clock)
    monkeypatch.delenv("HF_TOKEN")
    at_work.step()
    assert "no token for the hub: run `hf auth login`, or set HF_TOKEN" in at_work.details()["publish.docs"]
    assert hub.requests == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    at_work.step()
    assert hub.requests == [], "the pause is not over"
    clock.pass_(seconds=6)
    hub.fail("/commit/", 500)
    at_work.step()
    assert "did not finish" in at_work.details()["publish.docs"]
    assert "since 2026-03-01T12:00:00Z, until 2026-03-01T12:00:16Z" in at_work.details()["publish.docs"]
    clock.pass_(seconds=9)
    at_work.step()
    assert "did not finish" in at_work.details()["publish.docs"]
    clock.pass_(seconds=2)
    at_work.step()
    assert rows(hub) == {"q1": 1}
    assert TOKEN not in str(at_work.details())


def test_by_hand_what_is_new_is_published_at_once_and_a_dry_run_contacts_nobody(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report = report_file(tmp_path)
    commit(held, "q1")
    config = tmp_path / "qrelay.yaml"
    config.write_text(f"sink: {{qualification: {report}, publish: {{repo: {REPO}}}}}")
    asked = ["--collection", "docs", "--data-dir", str(tmp_path), "--config", str(config)]
    said = CliRunner().invoke(publish_command, [*asked, "--dry-run"])
    assert (said.exit_code, hub.requests) == (0, [])
    assert "nothing yet; 3 new labels; due now" in said.output
    said = CliRunner().invoke(publish_command, [*asked, "--json"])
    assert said.exit_code == 0, said.output
    assert (json.loads(said.stdout)["rows"], rows(hub)) == (1, {"q1": 1})
    config.write_text("sink: {}")
    assert isinstance(CliRunner().invoke(publish_command, asked).exception, ConfigError)


def test_every_database_knows_how_far_a_collection_is_published(ledger: Ledger, hub: Hub, tmp_path: Path) -> None:
    report_file(tmp_path)
    settings = made_settings("", tmp_path)
    for number in range(2):
        commit(ledger, f"q{number}", f"p{number}")
        at = standing_of(ledger, "docs", settings.publish)
        assert at is not None
        assert (at.published, at.labels) == (2 * number, 6)
        assert publish(ledger, "docs", settings) is not None
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 2), (2, 4)]
    assert recorded(ledger) == [(f"hf:{REPO}", 0, 2), (f"hf:{REPO}", 2, 4)]
    assert publish(ledger, "docs", settings) is None


def test_a_failure_that_nobody_expects_is_a_wait_too_and_other_collections_go_on(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    class Broken:
        """A hub whose library has a bug about one repository."""

        def open_repository(self, repo: str, *, public: bool) -> Repository:
            if "docs" in repo:
                raise ZeroDivisionError("of the library")
            return pushing.open_repository(repo, public=public)

        read_file = staticmethod(pushing.read_file)
        push_folder = staticmethod(pushing.push_folder)

    report_file(tmp_path)
    commit(held, "q1")
    commit(held, "q2", collection="faq")
    settings = made_settings(str(tmp_path / "ledger.sqlite"), tmp_path, repo="team/{collection}")
    at_work = Publisher(held, settings, Broken(), clock.seconds)
    at_work.step()
    assert "ZeroDivisionError('of the library')" in at_work.details()["publish.docs"]
    assert rows(hub, "team/faq") == {"q2": 1}


def test_a_public_repository_gets_nothing_unless_that_is_asked_for(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    commit(held, "q1")
    hub.repositories[REPO] = HubRepository(private=False)
    at_work = publisher(held, tmp_path, clock)
    at_work.step()
    assert "sink.publish.public" in at_work.details()["publish.docs"]
    assert hub.repositories[REPO].files == {}
    publisher(held, tmp_path, clock, public=True).step()
    assert rows(hub) == {"q1": 1}


def test_every_collection_goes_to_its_repository_or_all_into_one(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    commit(held, "q1")
    commit(held, "q2", collection="faq")
    publisher(held, tmp_path, clock).step()
    assert len(chain(hub)) == len(chain(hub, "faq")) == 1
    card = hub.repositories[REPO].files["README.md"].decode()
    assert "path: data/docs/*/train-*.parquet" in card
    assert "path: data/faq/*/train-*.parquet" in card
    publisher(held, tmp_path, clock, repo="team/{collection}-labels", collections=["faq"]).step()
    assert sorted(hub.repositories) == ["team/faq-labels", REPO]


def test_an_increment_without_rows_is_noted_and_not_sent(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock)
    commit(held, "q1", outcomes=[Missing("timeout", ""), graded(0)])
    at_work.step()
    at_work.step()
    assert hub.asked("POST", "/commit/") == 0
    assert recorded(held) == [(f"hf:{REPO}", 0, 1)]
    commit(held, "q2")
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 2)]


def test_files_that_somebody_removed_are_published_again(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    at_work = publisher(held, tmp_path, clock)
    commit(held, "q1")
    at_work.step()
    hub.repositories[REPO].files.clear()
    commit(held, "q2")
    at_work.step()
    assert [(each.first, each.last) for each in chain(hub)] == [(0, 2)]
    assert rows(hub) == {"q1": 1, "q2": 1}


def test_a_repository_of_another_ledger_or_format_is_left_alone(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    commit(held, "q1", "q2")
    publisher(held, tmp_path, clock).step()
    other = Ledger.open(tmp_path / "other.sqlite")
    commit(other, "q1")
    settings = made_settings(str(tmp_path / "other.sqlite"), tmp_path)
    with pytest.raises(InputError, match="another ledger published there"):
        publish(other, "docs", settings)
    other.close()
    commit(held, "q3")
    before = dict(hub.repositories[REPO].files)
    for change in ({"format": "triples"}, {"split": "train=0.5,dev=0.5"}):
        with pytest.raises(InputError, match="set them as they were, or name another repository"):
            publish(held, "docs", made_settings(str(tmp_path / "ledger.sqlite"), tmp_path, **change))
    assert hub.repositories[REPO].files == before


def test_a_publication_is_no_export_that_people_go_on_from(
    hub: Hub, held: Ledger, tmp_path: Path, clock: Clock
) -> None:
    report_file(tmp_path)
    commit(held, "q1")
    request = Request("docs", "qrels", overrides=True)
    write_export(held, request, tmp_path / "docs.qrels")
    commit(held, "q2")
    publisher(held, tmp_path, clock, format="qrels").step()
    found = last_export(held, "docs", "qrels", request.selection(), request.describe_rules())
    assert found is not None
    assert (found.location, found.to_change) == (str(tmp_path / "docs.qrels"), 1)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"collection": "docs"}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="restore it in the repository"):
        parse_manifest(data, "team/labels: x")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"repo": "nobody"}, "owner/name"),
        ({"repo": "a/{name}"}, "owner/name"),
        ({"repo": "a/b", "every_labels": None, "every_hours": None}, "nothing says when"),
        ({"repo": "a/b", "format": "run"}, "cannot be published"),
        ({"repo": "a/b", "split": "train=2"}, "--split"),
        ({"repo": "a/b", "collections": ["No Name"]}, "use up to 64"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SinkSettings.model_validate({"publish": settings})


async def test_the_sink_publishes_beside_its_work_and_top_shows_how_it_stands(
    hub: Hub, held: Ledger, tmp_path: Path
) -> None:
    report_file(tmp_path)
    commit(held, "q1")
    settings = made_settings(str(tmp_path / "ledger.sqlite"), tmp_path, poll_s=0.05)
    core = load_sink(settings)
    stopping = asyncio.Event()
    context: Any = SimpleNamespace(core=core, settings=settings)
    working = asyncio.create_task(work_beside(context, stopping))
    await eventually(lambda: "changes up to 1 since" in core.info().details.get("publish.docs", ""))
    stopping.set()
    await working
    details = {"docs": core.info().details["publish.docs"]}
    core.close()
    metrics = {"sink": {"qrelay_ready": 1.0, "qrelay_published_change": 1.0}}
    state = summary(Look(0.0, metrics), Look(1.0, metrics, published=details))
    assert state["published"] == details
    console = Console(file=io.StringIO(), width=200)
    console.print(render(state))
    assert f"publishing docs to {REPO}: changes up to 1 since" in console.file.getvalue()  # type: ignore[attr-defined]
    assert rows(hub) == {"q1": 1}


def test_nothing_is_published_unless_a_repository_is_named() -> None:
    assert not SinkSettings().publish.enabled
    assert SinkSettings.model_validate({"publish": {"repo": "a/b"}}).publish.public is False
    assert JUDGE != OTHER_JUDGE
