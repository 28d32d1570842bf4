"""Three NATS servers with the configuration that `prod` ships, each with an address and a disk of its own: each can
be killed, stopped, cut off, wiped, corrupted, or lose its power.

Only inside the namespaces that `cluster_run.py` makes: addresses, mounts and processes end with them.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from qrelay.runtime.natsserver import find_binary
from tests.deploy.k8s.cluster_run import connect, ip
from tests.deploy.k8s.namespaces import loopback_up
from tests.deploy.k8s.rendering import K8S

CONF: Final = K8S / "base" / "config" / "nats.conf"
_DISK_BYTES: Final = 1024**3
_CORRUPT: Final = 64
"""Places of each file that are overwritten."""
_HEALTHY_S: Final = 120.0
_REFUSES_S: Final = 5.0
_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = (2).to_bytes(4, "little")
"""Of what was not synced, nothing reaches the disk, the file system's journal included: as when the power goes."""


def shipped() -> dict[str, Any]:
    """The section `nats` of prod's settings."""
    section: dict[str, Any] = yaml.safe_load((K8S / "base" / "config" / "qrelay.yaml").read_text())["all"]["nats"]
    return {name: value for name, value in section.items() if name != "url"}


class Server:
    """One server. `powered`: whether its store lies on a file system that can lose its power."""

    def __init__(self, number: int, folder: Path, sync: str) -> None:
        self.name, self.address = f"nats-{number}", f"10.77.0.{number + 1}"
        self._folder = folder / self.name
        self._disk = self._folder / "disk"
        self._image = self._folder / "disk.img"
        self._sync = sync
        self._process: subprocess.Popen[bytes] | None = None
        self._disk.mkdir(parents=True)
        self.powered = self._format()

    def _format(self) -> bool:
        with self._image.open("wb") as image:
            image.truncate(_DISK_BYTES)
        made = subprocess.run(["mkfs.ext4", "-q", str(self._image)], capture_output=True, check=False)
        return made.returncode == 0 and self._mount()

    def _mount(self) -> bool:
        done = subprocess.run(
            ["mount", "-o", "loop", str(self._image), str(self._disk)], capture_output=True, check=False
        )
        return done.returncode == 0

    def start(self) -> None:
        """Start it; `await_healthy` waits."""
        conf = CONF.read_text()
        conf = conf.replace("/srv/nats/data", str(self._disk / "data")).replace(
            "/tmp/nats.pid", f"{self._folder}/pid"
        )
        conf = re.sub(r"sync_interval: \w+", f"sync_interval: {self._sync}", conf)
        (self._folder / "nats.conf").write_text(conf)
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                # `ip netns exec` would give it mounts of its own, which keep the others' lost disks alive
                ["nsenter", f"--net=/run/netns/{self.name}", find_binary(), "-c", str(self._folder / "nats.conf")],
                env={**os.environ, "POD_NAME": self.name},
                stdout=log,
                stderr=log,
            )

    def await_healthy(self) -> None:
        """Until it says that its streams are current."""
        deadline = time.monotonic() + _HEALTHY_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.address}:8222/healthz", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"{self.name} is not healthy after {_HEALTHY_S:.0f} s: {self.log()}")

    def log(self) -> str:
        """Its last lines."""
        return "\n".join((self._folder / "nats.log").read_text("utf8", "replace").splitlines()[-8:])

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def refused(self) -> str:
        """Its last words, where it ended by itself since its start; waits a moment for that."""
        assert self._process is not None
        try:
            self._process.wait(_REFUSES_S)
        except subprocess.TimeoutExpired:
            return ""
        return self.log().rpartition("[FTL] ")[2]

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cut(self, off: bool) -> None:
        """Its cable: nobody reaches it, and no connection breaks."""
        ip("link", "set", f"to-{self.name}", "down" if off else "up")

    def part(self, other: Server, apart: bool) -> None:
        """No packet from here to the other; clients reach both."""
        ip("-netns", self.name, "route", "add" if apart else "del", "blackhole", f"{other.address}/32")

    def wipe(self) -> None:
        """An empty store."""
        shutil.rmtree(self._disk / "data")

    def corrupt(self, draw: random.Random, pattern: str) -> int:
        """Random bytes over places of every file of its store with such a name; how many files."""
        files = [file for file in (self._disk / "data").rglob(pattern) if file.is_file() and file.stat().st_size]
        for file in files:
            with file.open("r+b") as opened:
                for _ in range(_CORRUPT):
                    opened.seek(draw.randrange(file.stat().st_size))
                    opened.write(draw.randbytes(8))
        return len(files)

    def lose_power(self) -> None:
        """Its file system is gone without flushing; the process dies with `kill`."""
        descriptor = os.open(self._disk, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def get_power(self) -> None:
        """Its file system as the disk has it."""
        subprocess.run(["umount", str(self._disk)], check=True)
        assert self._mount(), "the disk cannot be mounted again"


class Cluster:
    """The three, in a network of their own. A context manager."""

    def __init__(self, folder: Path, sync: str) -> None:
        self._folder = folder
        self._sync = sync
        self.servers: Sequence[Server] = ()

    def __enter__(self) -> Cluster:
        loopback_up()
        self.servers = [Server(number, self._folder, self._sync) for number in range(3)]
        connect({server.name: server.address for server in self.servers})
        hosts = self._folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{server.address} {server.name}.nats" for server in self.servers)]
        hosts.write_text("\n".join(lines) + "\n")
        subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        for server in self.servers:
            server.start()
        self.await_healthy()
        return self

    def __exit__(self, *_: Any) -> None:
        for server in self.servers:
            server.signal(signal.SIGCONT)
            server.kill()

    def await_healthy(self) -> None:
        """All three."""
        for server in self.servers:
            server.await_healthy()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return ",".join(f"nats://{server.address}:4222" for server in self.servers)

    def named(self, name: str) -> Server:
        """A server by its name."""
        return next(server for server in self.servers if server.name == name)

    def others(self, one: Server) -> list[Server]:
        """All but one."""
        return [server for server in self.servers if server is not one]
