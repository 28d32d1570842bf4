"""`python -m tests.chaos.cluster_run`: faults of a cluster of three NATS servers, under load; a JSON line a fault.

The configuration is prod's, the installation four real services with shipped doubles for models, the load a real
feed. A fault meets the server that leads the first queue. Afterwards every query whose acknowledgement is in the
feed's journal must be in the ledger once. Nothing is repaired but queues that have no leader for a minute, which an
operator deletes: then `qrelay reconcile --repair` feeds again what was in them, and the line says so. What this
machine does not permit is a line with the reason.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from qrelay.config import NatsSettings, Transport
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.chaos.checker import STATES, classify
from tests.chaos.cluster import Cluster, Server, shipped
from tests.chaos.evidence import collect_queries
from tests.deploy.k8s.namespaces import UNSHARE
from tests.pipeline.harness import DOUBLES, Installation

ROOT = Path(__file__).resolve().parents[2]
_LOOK_S: Final = 0.2
_LEADER_LOOKS: Final = 60
_SETTLED_S: Final = 240.0
"""Without any change for so long: what is left then does not end. Longer than prod's ack_wait."""
Fault = Callable[[Cluster, Server, "Load"], None]


class Load:
    """`qrelay feed --follow` on a file that grows by `rate` queries a second, and what is known of it meanwhile."""

    def __init__(self, installation: Installation, collection: str, rate: float) -> None:
        self._installation = installation
        self.collection = collection
        self._rate = rate
        self._file = installation.folder / f"{collection}.jsonl"
        self._ending = threading.Event()
        self.texts: dict[str, str] = {}
        self.notes: list[str] = []
        self._file.touch()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", "feed", str(self._file), "--follow", "--collection", collection,
             "--nats", installation.environ["QRELAY_ALL__NATS__URL"]],
            env={**os.environ, **installation.environ}, stdout=subprocess.DEVNULL,
            stderr=self._file.with_suffix(".log").open("ab"),
        )  # fmt: skip
        self._writer.start()

    def _write(self) -> None:
        with self._file.open("a", buffering=1) as file:
            while not self._ending.wait(1 / self._rate):
                query_id = f"{self.collection}-{len(self.texts):06d}"
                text = f"how does thing {len(self.texts)} relate to {self.collection}?"
                self.texts[query_id] = text
                file.write(json.dumps({"query_id": query_id, "text": text}) + "\n")

    def accepted(self) -> dict[str, float]:
        """What the journal holds, acknowledged and on the feed's disk: query_id -> when, in seconds since 1970."""
        journal = self._installation.folder / "feed" / f"{self.collection}.sqlite"
        rows = self._read(journal, "SELECT query_id, accepted_at FROM accepted")
        return {query_id: datetime.fromisoformat(at).timestamp() for query_id, at in rows}

    def commits(self) -> list[float]:
        """When the ledger got each query, in seconds since 1970."""
        query = "SELECT committed_us FROM queries WHERE collection = ?"
        return [row[0] / 1e6 for row in self._read(self.ledger, query, self.collection)]

    @property
    def ledger(self) -> Path:
        """The sink's database."""
        return self._installation.folder / "ledger.sqlite"

    @staticmethod
    def _read(path: Path, query: str, *values: str) -> list[Any]:
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:  # not there yet
            return []

    def _look(self) -> tuple[int, int]:
        """How many are accepted and committed now."""
        return len(self.accepted()), len(self.commits())

    def until_moving(self) -> None:
        """Until more was accepted, and more committed, than now; or one of the two stands for _SETTLED_S."""
        before = self._look()
        for part in (0, 1):
            self._until(lambda now, part=part: now[part] > before[part], lambda now, part=part: now[part])  # type: ignore[misc]

    def _until(
        self, holds: Callable[[tuple[int, int]], bool], watched: Callable[[tuple[int, int]], object] = lambda now: now
    ) -> None:
        """Until it holds, or what is watched has not changed for _SETTLED_S."""
        before, changed = None, time.monotonic()
        while not holds(now := self._look()) and time.monotonic() < changed + _SETTLED_S:
            if watched(now) != before:
                before, changed = watched(now), time.monotonic()
            time.sleep(_LOOK_S)

    def until_accepted(self) -> None:
        """No more queries; wait until all are accepted."""
        self._ending.set()
        self._writer.join()
        self._until(lambda now: now[0] == len(self.texts))

    def end(self) -> None:
        """No more queries; wait until all are accepted and committed, or nothing moves any more."""
        self._ending.set()
        self._writer.join()
        try:
            self._until(lambda now: now == (len(self.texts), len(self.texts)))
        finally:
            self._process.kill()
            self._process.wait()


def kill_one(cluster: Cluster, leader: Server, load: Load) -> None:
    """SIGKILL; a new process five seconds later."""
    leader.kill()
    time.sleep(5)
    leader.start()


def kill_all(cluster: Cluster, leader: Server, load: Load) -> None:
    """SIGKILL of all three."""
    for server in cluster.servers:
        server.kill()
    time.sleep(2)
    for server in cluster.servers:
        server.start()


def stop_one(cluster: Cluster, leader: Server, load: Load) -> None:
    """SIGSTOP for half a minute."""
    leader.signal(signal.SIGSTOP)
    time.sleep(30)
    leader.signal(signal.SIGCONT)


def cut_one(cluster: Cluster, leader: Server, load: Load) -> None:
    """Nobody reaches it for half a minute, clients neither."""
    leader.cut(True)
    time.sleep(30)
    leader.cut(False)


def part_one(cluster: Cluster, leader: Server, load: Load) -> None:
    """The others do not reach it for half a minute; clients do."""
    for other in cluster.others(leader):
        other.part(leader, True)
    time.sleep(30)
    for other in cluster.others(leader):
        other.part(leader, False)


def wipe_one(cluster: Cluster, leader: Server, load: Load) -> None:
    """It comes back with an empty disk."""
    leader.kill()
    leader.wipe()
    leader.start()


def corrupt(pattern: str, cluster: Cluster, leader: Server, load: Load) -> None:
    """It comes back with random bytes in files of its store. Where it refuses that store, an operator empties it."""
    leader.kill()
    files = leader.corrupt(random.Random(1), pattern)
    load.notes.append(f"{files} files corrupted")
    leader.start()
    if refusal := leader.refused():
        load.notes.append(f"the server refused its store ({refusal}): emptied")
        time.sleep(5)
        leader.wipe()
        leader.start()


def power_all(cluster: Cluster, leader: Server, load: Load) -> None:
    """All three lose their power at once, with everything that was not synced."""
    for server in cluster.servers:
        server.lose_power()
    for server in cluster.servers:
        server.kill()
    for server in cluster.servers:
        server.get_power()
    for server in cluster.servers:
        server.start()


FAULTS: Final[Mapping[str, Fault]] = {
    "kill.one": kill_one,
    "kill.all": kill_all,
    "stop.one": stop_one,
    "cut.one": cut_one,
    "part.one": part_one,
    "power.all": power_all,
    "wipe.one": wipe_one,
    "corrupt.one": partial(corrupt, "*.blk"),
    "spoil.one": partial(corrupt, "*"),
}
"""In the order in which they happen: power.all before a server's store is replaced, see docs/reliability.md."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fault came to. *_stood_s: the longest time in which nothing was accepted, committed, from the fault to
    the last accepted query; settled_s: from that to the last commit, up to `nats.ack_wait_s` for what was on its way
    to a service through a server that died."""

    fault: str
    accepted: int
    states: Mapping[str, int]
    feed_stood_s: float
    commits_stood_s: float
    settled_s: float
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def sound(self) -> bool:
        """Every acknowledged query is in the ledger, once."""
        return self.accepted > 0 and self.states["ok"] == self.accepted

    def line(self) -> dict[str, Any]:
        """For the JSON line."""
        shown = {name: value for name, value in dataclasses.asdict(self).items() if value or value == 0}
        states = shown.pop("states")
        return {**shown, **states, "sound": self.sound}


def judged(
    fault: str, fed: Mapping[str, str], found: Any, accepts: Sequence[float], commits: Sequence[float], began: float
) -> Verdict:
    """fed: acknowledged query_id -> text; found: the evidence; when each was accepted and committed, and the fault
    began, in seconds."""
    states = classify(fed, found)
    ended = max(accepts, default=began)
    return Verdict(
        fault,
        len(fed),
        {state: len(states[state]) for state in STATES},
        _longest(accepts, began),
        _longest([*(at for at in commits if at < ended), ended], began),
        round(max(0.0, max(commits, default=ended) - ended), 1),
        {state: ids[:5] for state, ids in states.items() if ids and state != "ok"},
    )


def _longest(moments: Sequence[float], since: float) -> float:
    after = [since, *sorted(moment for moment in moments if moment > since)]
    return round(max((b - a for a, b in itertools.pairwise(after)), default=0.0), 1)


async def leaders_of(nats: NatsSettings) -> dict[Queue, str]:
    """The name of the server that leads each queue, "" where none does."""
    async with await JetStreamBroker.connect(nats, name="chaos") as broker:
        found = {queue: (await broker._js.stream_info(queue.stream)).cluster for queue in Queue}
    return {queue: str(cluster.leader or "") if cluster else "" for queue, cluster in found.items()}


def delete_leaderless(nats: NatsSettings, load: Load) -> bool:
    """What an operator does, see docs/reliability.md; whether anything had to be done."""
    gone: list[Queue] = []
    for _ in range(_LEADER_LOOKS):
        gone = [queue for queue, leader in asyncio.run(leaders_of(nats)).items() if not leader]
        if not gone:
            return False
        time.sleep(1)
    asyncio.run(_delete(nats, gone))
    load.notes.append(f"no leader for a minute, deleted: {', '.join(queue.stream for queue in gone)}")
    return True


async def _delete(nats: NatsSettings, queues: Sequence[Queue]) -> None:
    async with await JetStreamBroker.connect(nats, name="chaos") as broker:
        for queue in queues:
            await broker._js.delete_stream(queue.stream)


def run_fault(name: str, cluster: Cluster, installation: Installation, rate: float, seconds: float) -> Verdict:
    """Load, fault, load until all moves again, the end, the count."""
    nats = NatsSettings(url=cluster.url).by(Transport(insecure=True))
    load = Load(installation, name.replace(".", "-"), rate)
    load.until_moving()
    time.sleep(seconds)
    leader = cluster.named(asyncio.run(leaders_of(nats))[Queue.QUERIES])
    began = time.time()
    FAULTS[name](cluster, leader, load)
    deleted = delete_leaderless(nats, load) if name == "power.all" else False
    load.until_moving()
    time.sleep(seconds)
    if deleted:
        load.until_accepted()
        load.notes.append(f"fed again: {installation.run('reconcile', '--collection', load.collection, '--repair')}")
    load.end()
    cluster.await_healthy()
    accepted = load.accepted()
    fed = {query_id: load.texts[query_id] for query_id in accepted}
    found = collect_queries(str(load.ledger), nats, load.collection)
    verdict = judged(name, fed, found, list(accepted.values()), load.commits(), began)
    return dataclasses.replace(verdict, notes=load.notes)


def settings(url: str, folder: Path) -> dict[str, str]:
    """The installation's: prod's of the queues, and doubles for models."""
    section = {f"QRELAY_ALL__NATS__{name.upper()}": str(value) for name, value in shipped().items()}
    where = {"QRELAY_ALL__NATS__URL": url, "QRELAY_SINK__LEDGER": str(folder / "ledger.sqlite")}
    return {**DOUBLES, **section, **where, "QRELAY_ALL__INSECURE": "true"}


def run(folder: Path, names: Sequence[str], sync: str, rate: float, seconds: float) -> bool:
    """The faults one after the other on one cluster; whether all held."""
    held = True
    with Cluster(folder / "cluster", sync) as cluster:
        data = folder / "data"
        with Installation(data, settings(cluster.url, data), "--nats", cluster.url) as installation:
            for name in names:
                if name == "power.all" and not all(server.powered for server in cluster.servers):
                    line: dict[str, Any] = {"fault": name, "skipped": "no loop device can be mounted here"}
                else:
                    verdict = run_fault(name, cluster, installation, rate, seconds)
                    line, held = verdict.line(), held and verdict.sound
                print(json.dumps({**line, "sync_interval": sync}), flush=True)
    return held


def why_not() -> str:
    """Why this machine does not let a process have a network of its own; empty: it does."""
    for program in ("unshare", "ip"):
        if not shutil.which(program):
            return f"no {program}: install util-linux and iproute2"
    tried = subprocess.run(
        [*_unshare(), "ip", "link", "add", "pods", "type", "bridge"], capture_output=True, text=True
    )
    return tried.stderr.strip() if tried.returncode else ""


def _unshare() -> list[str]:
    """As root without a user namespace, in which no loop device could be mounted."""
    return [part for part in UNSHARE if os.geteuid() or part not in ("--user", "--map-root-user")]


@click.command()
@click.option("--fault", "names", multiple=True, type=click.Choice(list(FAULTS)), help="Only these.  [default: all]")
@click.option("--sync", default="always", show_default=True, help="sync_interval of the servers.")
@click.option("--rate", default=40.0, show_default=True, help="Queries a second.")
@click.option("--seconds", default=5.0, show_default=True, help="Load before and after a fault.")
@click.option("--keep", is_flag=True, help="Keep the folder also when all is well.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True)
def main(names: tuple[str, ...], sync: str, rate: float, seconds: float, keep: bool, inside: Path | None) -> None:
    """Break three NATS servers on purpose and count every acknowledged query; exit code 1: one is lost or twice."""
    if inside:
        os._exit(0 if run(inside, names or list(FAULTS), sync, rate, seconds) else 1)
    if reason := why_not():
        click.echo(json.dumps({"skipped": reason}))
        return
    folder = Path(tempfile.mkdtemp(prefix="qrelay-cluster-"))
    command = [*_unshare(), sys.executable, "-m", "tests.chaos.cluster_run", *sys.argv[1:], "--inside", str(folder)]
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if code or keep:
        click.echo(f"everything is in {folder}", err=True)
    else:
        shutil.rmtree(folder)
    sys.exit(code)


if __name__ == "__main__":
    main()
