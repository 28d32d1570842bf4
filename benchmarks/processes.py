"""CPU time and memory of processes."""

from __future__ import annotations

import os

import psutil

from qrelay.bench.probe import peak_mib as peak_rss_mib
from qrelay.models.tuning import processor_name

__all__ = ["cpu_seconds", "environment", "peak_rss_mib"]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def environment() -> dict[str, object]:
    """What the figures were measured on."""
    return {"cpu": processor_name() or "unknown", "cores": os.cpu_count(), "kernel": os.uname().release}
