"""The table of faults. Each is a function of the scene and the drawn step; it returns how often the fault really
happened: a process died, an armed file was taken, a disk was full. One that never happens in a run is a defect of the
harness, and the run says so."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from qrelay.config import NatsSettings
from qrelay.runtime.faults import POINTS
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.chaos.database import fill
from tests.chaos.scene import Scene
from tests.chaos.schedule import SERVICES, Step

ROOT = Path(__file__).resolve().parents[2]
ACK_WAIT_S = 2.0
_FULL_S = 2.5
_AGAIN = 60
_RARE: Final = ("feed.", "sink.trigger.", "sink.launch.")
"""Points that one portion of queries may pass only once."""


def at_point(point: str, scene: Scene, step: Step) -> int:
    """Kill -9 inside the code, at the n-th pass; the next portion of queries brings the passes."""
    if point.startswith("sink."):
        scene.pid("sink")  # it may be down for a while after several deaths in a row
    armed = scene.arm(point, 1 if point.startswith(_RARE) else step.nth)
    scene.feeding.portion()
    return int(scene.await_consumed(armed))


def at_export_point(point: str, scene: Scene, step: Step) -> int:
    """Kill -9 of an export at a point inside it; a reader must find the file of before, none, or a whole one."""
    armed, target = scene.arm(point, 1), scene.installation.folder / "killed.triples"
    process = scene.start_export("triples", target)
    code = process.wait()
    if not scene.await_consumed(armed, 0.0):
        return 0
    if code != -signal.SIGKILL:
        scene.wrong.append(f"{point}: the export ended with {code} instead of dying")
    if target.exists() and any(not _is_json(line) for line in target.read_bytes().splitlines(keepends=True)):
        scene.wrong.append(f"{point}: a file that is not whole lies at the export's place")
    return 1


def _is_json(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def kill(name: str, scene: Scene, step: Step) -> int:
    """Kill -9 at a moment that nobody chose."""
    pid = scene.signal(name, signal.SIGKILL)
    scene.await_successor(name, pid)
    return int(pid != 0)


def kill_feed(scene: Scene, step: Step) -> int:
    """Kill -9 of the feed while it publishes; the next portion starts it again on the same file."""
    scene.feeding.portion()
    time.sleep(step.length * 0.3)
    return int(scene.feeding.kill())


def kill_export(scene: Scene, step: Step) -> int:
    """Kill -9 of an export at a moment that nobody chose; earlier, where one was too quick for it."""
    for haste in (1.0, 0.6, 0.3):
        process = scene.start_export("qrels", scene.installation.folder / "killed.qrels")
        time.sleep(haste * (0.4 + step.length * 0.6))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            return 1
    return 0


def restart_nats(scene: Scene, step: Step) -> int:
    """An orderly stop of the server; the supervisor starts it again."""
    pid = scene.signal("nats", signal.SIGTERM)
    scene.await_successor("nats", pid)
    return int(pid != 0)


def delete_stream(scene: Scene, step: Step) -> int:
    """A person deletes a queue and all in it; the services declare it again, and reconcile finds what is lost."""
    queue, settings = Queue(step.queue), NatsSettings(url=scene.installation.endpoint("nats").grpc)

    async def delete() -> int:
        async with await JetStreamBroker.connect(settings, name="chaos") as broker:
            return int(await broker._js.delete_stream(queue.stream))

    scene.losses += 1
    return asyncio.run(delete())


def wipe_nats(scene: Scene, step: Step) -> int:
    """The server dies and its store is gone when the supervisor starts it again."""
    pid = scene.signal("nats", signal.SIGSTOP)
    if not _is_stopped(pid):
        return 0
    scene.losses += 1
    shutil.rmtree(scene.installation.folder / "nats" / "jetstream")
    os.kill(pid, signal.SIGKILL)
    scene.await_successor("nats", pid)
    return 1


def restart_database(scene: Scene, step: Step) -> int:
    """Immediate shutdown of PostgreSQL and its recovery."""
    assert scene.postgres is not None
    return int(scene.postgres.crash())


def pause(name: str, scene: Scene, step: Step) -> int:
    """SIGSTOP for longer than ack_wait, so that what it held goes to others or comes back to it twice; others work on
    meanwhile, and the schedule goes on."""
    victim = name or step.victim
    pid = scene.signal(victim, signal.SIGSTOP)
    stopped = _is_stopped(pid)
    scene.later(ACK_WAIT_S + 0.5 + step.length, victim, pid, signal.SIGCONT)
    scene.feeding.portion()
    return int(stopped)


def _is_stopped(pid: int) -> bool:
    for _ in range(40):
        try:
            state = re.search(r"^State:\s+(\w)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        except OSError:
            return False
        if state and state[1] in "Tt":
            return True
        time.sleep(0.02)
    return False


def slow_consumer(scene: Scene, step: Step) -> int:
    """A service that gets a fifth of the time for a while: the stage before it fills up."""
    pid, slowed = scene.pid(step.victim), 0
    scene.feeding.portion()
    try:
        for _ in range(int(4 + 6 * step.length)):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.24)
            slowed += _is_stopped(pid)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.06)
    except ProcessLookupError:
        pass
    return int(slowed > 0)


def deliver_again(scene: Scene, step: Step) -> int:
    """Messages of a stage once more, shuffled, under ids that no duplicate window knows."""
    return int(scene.recorder.again(step.queue, _AGAIN, scene.draw) > 0)


def full_disk(scene: Scene, step: Step) -> int:
    """No room on the ledger's disk for a while; counted when the sink ran into it."""
    assert scene.small_disk is not None
    before = _full(scene)
    ballast = fill(scene.small_disk)
    scene.feeding.portion()
    time.sleep(_FULL_S + step.length)
    free = shutil.disk_usage(scene.small_disk).free
    met = _full(scene) > before
    ballast.unlink()
    return int(free == 0 and met)


def _full(scene: Scene) -> int:
    """How often the sink met a full disk, by its log: SQLite's words, or the system's."""
    return len(re.findall(r"disk is full|No space left", scene.sink_log))


@dataclass(frozen=True, slots=True)
class Fault:
    """`needs`: postgres, disk (a small one of the ledger's own), or a named point of the code."""

    run: Callable[[Scene, Step], int]
    needs: str = ""


def _point(name: str) -> Fault:
    within = at_export_point if name.startswith("sink.export.") else at_point
    return Fault(partial(within, name), name)


FAULTS: Final[dict[str, Fault]] = {
    **{name: _point(name) for name in POINTS},
    **{f"kill.{name}": Fault(partial(kill, name)) for name in (*SERVICES, "nats")},
    "kill.feed": Fault(kill_feed),
    "kill.export": Fault(kill_export),
    "restart.nats": Fault(restart_nats),
    "delete.stream": Fault(delete_stream),
    "wipe.nats": Fault(wipe_nats),
    "restart.database": Fault(restart_database, "postgres"),
    "pause.service": Fault(partial(pause, "")),
    "pause.nats": Fault(partial(pause, "nats")),
    "slow.consumer": Fault(slow_consumer),
    "deliver.again": Fault(deliver_again),
    "disk.full": Fault(full_disk, "disk"),
}


def left_out(*, disk: bool, ledgers: Collection[str]) -> dict[str, str]:
    """kind -> why it cannot happen in a run whose seeds have these ledgers; `disk`: whether mounting is allowed."""
    tops = (ROOT / top for top in ("services", "qrelay"))
    source = "".join(path.read_text("utf8") for top in tops for path in top.rglob("*.py"))
    reasons = {
        "postgres": "" if "postgresql" in ledgers else "no seed keeps its ledger in PostgreSQL",
        "disk": "" if disk else "mounting a small disk is not allowed here",
        **{name: "" if f'faults.point("{name}")' in source else "the code has no such point" for name in POINTS},
    }
    if "sqlite" not in ledgers:
        reasons["disk"] = "no seed keeps its ledger in a file"
    return {kind: reason for kind, fault in FAULTS.items() if (reason := reasons.get(fault.needs, ""))}


def kinds_for(ledger: str, out: dict[str, str]) -> list[str]:
    """The kinds that a seed with this ledger may draw."""
    absent = "disk" if ledger == "postgresql" else "postgres"
    return [kind for kind, fault in FAULTS.items() if kind not in out and fault.needs != absent]
