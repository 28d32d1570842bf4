"""Linux namespaces for a run of the tiny kubelet: what a user without privileges gets where the kernel allows it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.k8s.rendering import ROOT

UNSHARE: Final = (
    "unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"
)  # fmt: skip
"""The process namespace ends every container with the first process, however that ends."""
_WAY_OUT: Final = "outside"


def run_inside(module: str, folder: Path, *trial: str) -> dict[str, Any]:
    """The module run on the folder in namespaces of its own: the JSON object that it printed last.

    Skips the test where the machine has no user namespaces, or where the command `trial` fails in one: there is no
    other way to give each container its own file system.
    """
    for program in ("unshare", trial[0]):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this machine: install util-linux and iproute2")
    tried = subprocess.run([*UNSHARE, *trial], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no user namespaces with what is needed on this machine: {tried.stderr.strip()}")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", module, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "broken" not in found, found["broken"]
    return found


def lead_outside(folder: Path) -> None:
    """A way out that ends nowhere, for packets and for questions to DNS: `sent_outside` counts what is sent."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # it would look for routers by itself
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 10.88.0.2\n", "utf8")
    for command in (
        f"mount --bind {resolver} /etc/resolv.conf",
        f"ip link add {_WAY_OUT} type veth peer name nowhere",
        "ip link set nowhere up",
        f"ip addr add 10.88.0.1/24 dev {_WAY_OUT}",
        f"ip link set {_WAY_OUT} up",
        "ip route add default via 10.88.0.2",
    ):
        subprocess.run(command.split(), check=True)


def sent_outside() -> int:
    """Packets that were sent to other machines, those that ask who has an address among them."""
    counts = dict(line.split(":") for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line)
    return int({name.strip(): numbers for name, numbers in counts.items()}[_WAY_OUT].split()[9])


def call_outside() -> None:
    """Something that `sent_outside` has to count."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.sendto(b"?", ("192.0.2.1", 9))


def loopback_up() -> None:
    """`ip link set lo up`, without ip(8)."""
    set_flags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up_and_running))
