"""The process that re-embeds beside the service: `qrelay index reembed`, at low priority, on threads of its own.

A process and not a thread, because it then shares neither Python's lock nor torch's thread pool with the requests,
can be ended at any moment, and is the very command that a job elsewhere would run.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import psutil

from qrelay.exitcodes import EXIT_BUSY
from qrelay.index.settings import RetrieverSettings
from qrelay.models.served import registered

log = logging.getLogger(__name__)

RETRY_LOOKS: Final = 12
_STOP_S: Final = 5.0
_LAST_CHARS: Final = 600


class Builder:
    """At most one process, which embeds with one model. A target is a model's fingerprint."""

    def __init__(self, settings: RetrieverSettings, registry: Path) -> None:
        self._settings, self._registry = settings, registry
        self._process: subprocess.Popen[bytes] | None = None
        self._target = ""
        self._again_at: dict[str, float] = {}
        self._problems: dict[str, str] = {}

    @property
    def running(self) -> bool:
        """Whether there is a process whose end was not yet seen."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid if self._process else None

    @property
    def cpu_s(self) -> float:
        """Processor seconds that the process has used, by which it is seen to live before its first vector; 0 where
        there is none."""
        if self._process is None:
            return 0.0
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    @property
    def problem(self) -> str:
        """What is wrong, of each target whose last process failed; "": nothing."""
        return "\n".join(self._problems.values())

    def due(self, targets: Collection[str], now: float) -> list[str]:
        """Those that a process may be started for, the one whose last start is longest ago first: not before the time
        of one that failed is over."""
        able = [target for target in targets if target not in self._problems or now >= self._again_at[target]]
        return sorted(able, key=lambda target: self._again_at.get(target, 0.0))

    def forget_others(self, targets: Collection[str]) -> None:
        """End the process and forget the failures of what is no target any more."""
        if self._target not in targets:
            self.stop()
        self._problems = {target: problem for target, problem in self._problems.items() if target in targets}

    def start(self, target: str, collections: Sequence[str], now: float) -> None:
        """Start re-embedding `collections` for `target`. `now`: from when a failure's time is counted."""
        settings = self._settings
        model = ["registry"]
        if not registered(target):
            model = [settings.embedder, "--engine", settings.embedder_engine, "--dim", str(settings.embedder_dim)]
        command = [sys.executable, "-m", "qrelay.cli.main", "index", "reembed", "--model", *model]
        command += ["--out", str(settings.index_folder), "--registry", str(self._registry)]
        command += ["--threads", str(settings.reembed_threads), "--niceness", "10", "--parent", str(os.getpid())]
        command += [word for name in collections for word in ("--collection", name)]
        threads = str(settings.reembed_threads)
        environ = {
            **os.environ,
            **variables_of(settings),
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }
        with self._log().open("wb") as errors:
            self._process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
        self._target, self._again_at[target] = target, now + RETRY_LOOKS * settings.registry_poll_s
        log.info("re-embedding %s for %s", ", ".join(collections), target, extra={"pid": self._process.pid})

    def poll(self) -> None:
        """See whether the process has ended, and how."""
        code = self._process.poll() if self._process else None
        if code is None:
            return
        said = self._log().read_text("utf8", errors="replace").strip()[-_LAST_CHARS:]
        self._log().unlink(missing_ok=True)
        self._process = None
        self._problems.pop(self._target, None)
        if code and code != EXIT_BUSY:
            self._problems[self._target] = (
                f"re-embedding for {self._target} ended with exit code {code}: {said or 'it said nothing'}"
            )

    def stop(self) -> None:
        """End the process, if there is one; what it has embedded stays for the next."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._log().unlink(missing_ok=True)

    def _log(self) -> Path:
        return self._settings.index_folder / f".reembed-{self._settings.replica or os.getpid()}.log"


def variables_of(settings: RetrieverSettings) -> dict[str, str]:
    """Variables by which the process loads what it makes where this service reads it."""
    if settings.engine != "milvus":
        return {}
    given = settings.milvus.model_dump_json(exclude_defaults=True)
    return {"QRELAY_RETRIEVER__ENGINE": "milvus", "QRELAY_RETRIEVER__MILVUS": given}
