"""CPU time of processes."""

from __future__ import annotations

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far; without its children's."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
