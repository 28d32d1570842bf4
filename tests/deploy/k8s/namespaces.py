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


def loopback_up() -> None:
    """`ip link set lo up`, without ip(8)."""
    set_flags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up_and_running))
