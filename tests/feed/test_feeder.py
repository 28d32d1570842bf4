"""Feeding: acknowledged, resumable, deduplicated, and nothing lost to a bad line."""

from __future__ import annotations

import asyncio
import gzip
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from qrelay import wire
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, ConfigError, InvalidQuery, MalformedInput
from qrelay.feed.feeder import Feeder, FeedReport
from qrelay.feed.journal import Journal
from qrelay.feed.source import open_lines
from qrelay.runtime.broker import Broker
from qrelay.runtime.dead_letters import replays
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.memory import Faults, MemoryBroker
from qrelay.runtime.topology import Queue
from qrelay.types import Query


async def lines(*items: str | None) -> AsyncIterator[str | None]:
    for item in items:
        yield item


async def feed(
    broker: Broker, path: Path, items: Iterable[str | None], window: int = 4, query_round: int = 0
) -> FeedReport:
    with Journal(path) as journal:
        feeder = Feeder(broker, journal, collection="docs", query_round=query_round, window=window)
        return await feeder.feed(lines(*items))


async def queries(broker: MemoryBroker) -> list[Query]:
    messages = await broker.fetch(Queue.QUERIES, 1000, 0.01)
    return [record for m in messages if isinstance(record := wire.decode(m.payload, m.headers), Query)]


async def test_bad_lines_are_named_with_their_numbers_and_the_others_go_on(tmp_path: Path) -> None:
    broker = MemoryBroker()
    report = await feed(broker, tmp_path / "j", ["a\tone", '{"query_id": "x", ', "", "b\t", "c\tthree"])
    assert (report.accepted, sorted(report.rejected)) == (2, [2, 4])
    assert "not JSON" in report.rejected[2]
    assert [query.query_id for query in await queries(broker)] == ["a", "c"]
    assert all(query.submitted_at for query in await queries(broker))


async def test_feeding_again_adds_only_what_is_new(tmp_path: Path) -> None:
    broker = MemoryBroker()
    await feed(broker, tmp_path / "j", ["a\tone", "b\ttwo"])
    report = await feed(broker, tmp_path / "j", ["a\tone", "b\ttwo", "c\tthree"])
    assert (report.accepted, report.known) == (1, 2)
    assert len(await queries(broker)) == 3


async def test_a_later_round_is_fed_again_and_an_earlier_one_is_known(tmp_path: Path) -> None:
    broker, path = MemoryBroker(), tmp_path / "j"
    await feed(broker, path, ["a\tone", "b\ttwo"])
    again = await feed(broker, path, ["a\tone", "a\tother"], query_round=2)
    assert (again.accepted, again.known, list(again.rejected)) == (1, 0, [2])
    for query_round in (2, 1, 0):
        assert (await feed(broker, path, ["a\tone"], query_round=query_round)).known == 1
    assert [(query.query_id, query.round) for query in await queries(broker)] == [("a", 0), ("b", 0), ("a", 2)]
    with Journal(path) as journal:
        assert [(e.query_id, e.round, e.query.round) for e in journal.entries() if e.query] == [
            ("a", 2, 2),
            ("b", 0, 0),
        ]


async def test_a_query_that_is_allowed_again_is_queued_though_the_stream_remembers_it(
    tmp_path: Path, nats_settings: NatsSettings
) -> None:
    """Fed, forgotten, allowed and fed within the stream's duplicate window: its message id is another, and stays."""
    path = tmp_path / "j"
    async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as broker:
        for step in ("first", "again", "killed before it was recorded"):
            assert (await feed(broker, path, ["a\tone", "b\ttwo"])).accepted == (2 if step == "first" else 1)
            held = [message async for message in broker.stored(Queue.QUERIES, "docs")]
            queued = [record.query_id for m in held if isinstance(record := wire.decode(m.payload, m.headers), Query)]
            assert sorted(queued) == ["a", "b"], step
            if step == "first":
                for message in held:
                    if b"one" in message.payload:
                        await broker.erase(Queue.QUERIES, message.sequence)
                with Journal(path) as journal:
                    journal.forget("docs", ["a"])
                    journal.allow_again("docs", ["a", "b"])
            elif step == "again":
                assert [bool(replays(message.headers)) for message in held] == [False, True]
                with sqlite3.connect(path) as raw:
                    raw.execute("DELETE FROM accepted WHERE query_id = 'a'")


async def test_a_journal_from_before_rounds_holds_round_0(tmp_path: Path) -> None:
    broker, path = MemoryBroker(), tmp_path / "j"
    await feed(broker, path, ["a\tone"])
    with sqlite3.connect(path) as raw:
        raw.execute("ALTER TABLE accepted DROP COLUMN round")
    raw.close()
    assert (await feed(broker, path, ["a\tone"])).known == 1
    assert (await feed(broker, path, ["a\tone"], query_round=1)).accepted == 1
    with Journal(path) as journal:
        entry = journal.entry("a")
    assert entry is not None and entry.round == 1


async def test_the_same_id_with_another_text_is_rejected_within_a_file_and_across_files(tmp_path: Path) -> None:
    broker = MemoryBroker()
    report = await feed(broker, tmp_path / "j", ["a\tone", "a\tother", "a\tone"])
    assert (report.accepted, report.known, list(report.rejected)) == (1, 1, [2])
    assert "another text" in report.rejected[2]
    again = await feed(broker, tmp_path / "j", ["a\tyet another"])
    assert (again.accepted, list(again.rejected)) == (0, [1])
    assert [query.text for query in await queries(broker)] == ["one"]


async def test_unconfirmed_and_refused_publishes_are_repeated_until_stored_once(tmp_path: Path) -> None:
    broker = MemoryBroker(faults=Faults(publish_unconfirmed=0.3, publish_refused=0.3, seed=3))
    report = await feed(broker, tmp_path / "j", [f"q{i}\ttext {i}" for i in range(40)], window=16)
    assert report.accepted == 40
    assert sorted(query.query_id for query in await queries(broker)) == sorted(f"q{i}" for i in range(40))


async def test_a_feed_that_gets_nowhere_ends_and_what_was_accepted_is_known(tmp_path: Path) -> None:
    broker, seconds = MemoryBroker(), iter(range(0, 10_000, 400))
    await feed(broker, tmp_path / "j", ["q1\tone"])
    broker.faults = Faults(publish_refused=1.0)
    with Journal(tmp_path / "j") as journal:
        feeder = Feeder(broker, journal, collection="docs", clock=lambda: next(seconds))
        with pytest.raises(BackendUnavailable, match=r"could be published for 600 s.*\n.*feeds nothing twice"):
            await feeder.feed(lines("q1\tone", "q2\ttwo"))
        assert (feeder.report.known, feeder.report.accepted) == (1, 0)
    broker.faults = Faults()
    assert (await feed(broker, tmp_path / "j", ["q1\tone", "q2\ttwo"])).accepted == 1


async def test_an_oversized_query_is_rejected_with_the_limit_and_its_line(tmp_path: Path) -> None:
    broker = MemoryBroker(max_message_bytes=200)
    noise = "".join(chr(0x4E00 + i * 37 % 20000) for i in range(2000))
    report = await feed(broker, tmp_path / "j", ["a\tone", f"b\t{noise}"])
    assert (report.accepted, list(report.rejected)) == (1, [2])
    assert "max_message_bytes is 200" in report.rejected[2]


async def test_a_pause_in_the_input_publishes_what_was_read(tmp_path: Path) -> None:
    broker = MemoryBroker()
    seen: list[int] = []

    async def pausing() -> AsyncIterator[str | None]:
        yield "a\tone"
        yield None
        seen.append(len(await queries(broker)))
        yield "b\ttwo"

    with Journal(tmp_path / "j") as journal:
        await Feeder(broker, journal, collection="docs").feed(pausing())
    assert seen == [1]


async def followed(path: Path, wanted: int, steps: Iterable[Callable[[], object]] = ()) -> list[bytes]:
    """The first lines of a followed file; one of the steps is taken at each pause."""
    got: list[bytes] = []
    waiting = iter(steps)
    async with asyncio.timeout(10):
        async for line in open_lines(path, follow=True):
            if line is None:
                next(waiting, lambda: None)()
                continue
            got.append(line)
            if len(got) == wanted:
                break
    return got


def append(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


async def test_a_followed_file_gives_whole_lines_as_they_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\nsec")
    assert await followed(path, 2, [append(path, b"ond\n")]) == [b"first", b"second"]


async def test_a_character_that_two_writes_hold_comes_whole(tmp_path: Path) -> None:
    path, text = tmp_path / "queries.txt", "où dort le chat 糖尿病".encode()
    (line,) = await followed(path, 1, [append(path, text[:-2]), append(path, text[-2:] + b"\n")])
    assert line == text


async def test_a_followed_log_that_is_rotated_is_read_to_its_end_and_the_new_one_from_its_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old\n")

    def rotate() -> None:
        append(path, b"late\n")()
        path.rename(tmp_path / "log.txt.1")
        path.write_text("".join(f"new {n}\n" for n in range(12)))

    def cut() -> None:
        path.write_text("after the cut\n")

    got = await followed(path, 15, [rotate, lambda: None, cut])
    assert got == [b"old", b"late", *(f"new {n}".encode() for n in range(12)), b"after the cut"]


async def test_of_a_log_that_is_rotated_twice_between_two_looks_every_line_is_fed(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    (tmp_path / "log.txt.9").write_text("from before\n")
    os.utime(tmp_path / "log.txt.9", (1, 1))
    (tmp_path / "log.txt.bak").write_text("no rotation\n")
    path.write_text("old\n")

    def rotate() -> None:
        append(path, b"late\n")()
        path.rename(tmp_path / "log.txt.2")
        (tmp_path / "log.txt.1.gz").write_bytes(gzip.compress(b"between\n"))
        (tmp_path / "log.txt.3.gz").write_bytes(gzip.compress(b"half of it")[:-9])
        path.write_text("new\n")

    assert await followed(path, 4, [rotate]) == [b"old", b"late", b"between", b"new"]


async def test_a_followed_file_that_is_cut_and_grows_beyond_the_place_reached_is_read_from_its_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old 1\nold 2\n")
    anew = [f"the new line {n}".encode() for n in range(4)]
    got = await followed(path, 6, [lambda: path.write_bytes(b"\n".join(anew) + b"\n")])
    assert got == [b"old 1", b"old 2", *anew]


async def test_a_followed_file_that_is_copied_and_cut_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old\n")

    def rotate() -> None:
        append(path, b"late\n")()
        (tmp_path / "log.txt-20261129").write_bytes(path.read_bytes())
        path.write_text("new\n")

    assert await followed(path, 4, [rotate]) == [b"old", b"old", b"late", b"new"]  # known ones are fed once


async def test_a_writer_that_still_has_the_old_file_when_the_new_one_is_made_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old\n")
    writer = path.open("ab", buffering=0)

    def create() -> None:
        path.rename(tmp_path / "log.txt.1")
        path.touch()

    late, new = (lambda: writer.write(b"late\n")), append(path, b"new\n")
    assert await followed(path, 3, [create, lambda: None, late, new]) == [b"old", b"late", b"new"]


async def test_a_line_without_its_end_that_a_rotation_leaves_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.txt"
    path.write_text("old\nhalf a li")

    def rotate() -> None:
        path.rename(tmp_path / "log.txt.1")
        path.write_text("new\n")

    assert await followed(path, 2, [rotate]) == [b"old", b"new"]
    assert "its last line had no end and is not fed (9 bytes)" in caplog.text


@pytest.mark.parametrize(
    ("name", "data"), [("q.csv", b"q1,a\n"), ("q.txt", b"a\0b\n"), ("q.txt", "où\n".encode("utf-16"))]
)
@pytest.mark.parametrize("follow", [False, True])
async def test_a_file_that_holds_no_lines_of_text_is_refused_whole(
    tmp_path: Path, name: str, data: bytes, follow: bool
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MalformedInput, match=name):
        await anext(open_lines(tmp_path / name, follow=follow))


async def test_a_compressed_file_is_fed_and_cannot_be_followed(tmp_path: Path) -> None:
    path = tmp_path / "queries"
    path.write_bytes(gzip.compress(b"one\ntwo\r\n"))
    assert [line async for line in open_lines(path, follow=False)] == [b"one", b"two"]
    with pytest.raises(MalformedInput, match="compressed"):
        await anext(open_lines(path, follow=True))


async def test_lines_that_hold_no_text_are_rejected_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "queries.tsv"
    path.write_bytes(b"query_id\ttext\n" + "q1\toù\nq2\tété\n".encode() + "q3\tété\n".encode("latin-1"))
    broker = MemoryBroker()
    with Journal(tmp_path / "j") as journal:
        report = await Feeder(broker, journal, collection="docs").feed(open_lines(path, follow=False))
    assert [query.text for query in await queries(broker)] == ["où", "été"]
    assert {number: why.partition(":")[0] for number, why in report.rejected.items()} == {
        1: "a header, no query",
        4: "not UTF-8 (byte 4)",
    }


@pytest.mark.parametrize("collection", ["docs.v2", "my docs", "", "*"])
def test_nothing_is_fed_under_a_name_that_no_subject_can_hold(tmp_path: Path, collection: str) -> None:
    with Journal(tmp_path / "j") as journal, pytest.raises(InvalidQuery, match="use 1 to 64 of"):
        Feeder(MemoryBroker(), journal, collection=collection)


READ_STDIN = """
import asyncio
from qrelay.feed.source import open_lines
async def read():
    print([len(line) async for line in open_lines(None, follow=False) if line is not None])
asyncio.run(read())
"""


def test_a_pipe_gives_lines_of_any_length_and_the_last_without_its_end() -> None:
    data = b"\xef\xbb\xbfone\n" + b"x" * (20 << 20) + b"\n\nlast"
    done = subprocess.run([sys.executable, "-c", READ_STDIN], input=data, capture_output=True, check=False)
    assert done.stdout.decode().strip() == f"[3, {20 << 20}, 0, 4]", done.stderr.decode()


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "docs.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"docs.sqlite is damaged .*move it away"), Journal(path):
        pass
