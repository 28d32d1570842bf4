"""The running services that rounds use: found in the data folder, or started for as long as the rounds take."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qrelay.errors import BackendTimeout, BackendUnavailable, QrelayError, SetupError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, kind_of
from qrelay.models.served import registered
from qrelay.parsing import json_document
from qrelay.rundir import DATA_DIR_VARIABLE, endpoints, require
from qrelay.runtime.client import get_info
from qrelay.runtime.lookout import preparing
from qrelay.settings.load import transport_of
from qrelay.settings.sources import RECORD_NAME
from qrelay.v1.service_info_pb2 import SERVICE_STATE_PREPARING, ServiceInfo

_SERVICE_OF: Final = {BI_ENCODER: "retriever", CROSS_ENCODER: "reranker"}
_NEEDED: Final = ("retriever", "reranker", "judge", "sink")
_WORDS: Final = 1000
"""Characters of a command's last words in an error."""
_POLL_S: Final = 0.3
_INFO_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Fed:
    """How the queries of one round ended."""

    committed: int
    dead: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Installation:
    """One data folder. `config`: settings file for what is started."""

    data_dir: Path
    config: Path | None = None

    @property
    def missing(self) -> list[str]:
        """Services that do not run."""
        found = endpoints(self.data_dir)
        return [name for name in _NEEDED if name not in found]

    @contextmanager
    def running(self) -> Iterator[bool]:
        """The services run within it; True: they were started for it, and are stopped after it.

        Raises:
            SetupError: `qrelay up` ended; its last words are in the text.
            BackendUnavailable: some run, and others do not; or they did not stop.
        """
        missing = self.missing
        if not missing:
            yield False
            return
        if len(missing) < len(_NEEDED):
            raise BackendUnavailable(
                f"of the services on {self.data_dir}, {', '.join(missing)} do not run: wait for `qrelay up` to start"
                " them, or stop the others"
            )
        done = self.command("up", "--detach", "--port-base", "0", *self._recorded())
        if done.returncode:
            raise SetupError(f"the services did not start: {done.stderr.strip()[-_WORDS:]}")
        try:
            yield True
        finally:
            stopped = self.command("down")
        if stopped.returncode:
            raise BackendUnavailable(f"the services did not stop: {stopped.stderr.strip()[-_WORDS:]}")

    def feed(self, queries: Path, collection: str, number: int) -> Fed:
        """Feeds every query in this round and waits until each is committed or a dead letter. What was fed in it
        before is not fed again.

        Raises:
            BackendUnavailable: feeding failed; its last words are in the text.
        """
        done = self.command(
            "feed", str(queries), "--collection", collection, "--round", str(number), "--wait", "--json",
            *self._config(),
        )  # fmt: skip
        if done.returncode not in (0, EXIT_PARTIAL):
            raise BackendUnavailable(
                f"feeding round {number} ended with {done.returncode}: {done.stderr.strip()[-_WORDS:]}"
            )
        told = json_document(done.stdout.splitlines()[-1])
        return Fed(told["committed"], told["dead"], len(told["rejected"]))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A qrelay command on this installation. Its output is caught; what it says beside it, its progress, is also
        passed on as it comes."""
        line = [sys.executable, "-m", "qrelay.cli.main", *arguments, "--data-dir", str(self.data_dir)]
        said = []
        with (
            tempfile.TemporaryFile("w+") as output,
            subprocess.Popen(line, env=self._environ(), stdout=output, stderr=subprocess.PIPE, text=True) as process,
        ):
            for text in process.stderr or ():
                said.append(text)
                sys.stderr.write(text)
                sys.stderr.flush()
            code = process.wait()
            output.seek(0)
            return subprocess.CompletedProcess(line, code, output.read(), "".join(said))

    def job(self, file: Path) -> int:
        """Runs a training job in a process of its own, which frees its memory; its exit code. What it says is
        shown."""
        command = [sys.executable, "-m", "qrelay.cli.main", "train", "--job", str(file), *self._config()]
        return subprocess.run(command, check=False, env=self._environ(), stdout=sys.stderr).returncode

    def served(self, slot: str, collection: str) -> Sequence[str]:
        """Fingerprints of the models that the slot's service has loaded. Raises TransientError: it does not answer,
        or is not ready."""
        info = self._info(slot)
        if info.state == SERVICE_STATE_PREPARING:
            raise BackendUnavailable(f"the {_service(slot)} is not ready: {preparing(info) or 'it starts'}")
        return _models(info, collection)

    def await_served(self, slot: str, collection: str, version: str, timeout_s: float) -> None:
        """Returns once the slot's service names the version. While the service gets on with it (its GetInfo changes),
        it is waited for.

        Raises:
            BackendTimeout: it does not, and nothing has changed for so many seconds; the text says what it serves.
        """
        since, last, seen = time.monotonic(), "nothing", None
        while True:
            try:
                info = self._info(slot)
                models = _models(info, collection)
                if any(registered(model) == version for model in models):
                    return
                last = ", ".join([*models, str(preparing(info) or "")]).strip(", ") or "nothing"
                if (sign := (preparing(info), dict(info.models), dict(info.details))) != seen:
                    since, seen = time.monotonic(), sign
            except QrelayError as error:
                last = str(error)
            if time.monotonic() - since > timeout_s:
                raise BackendTimeout(
                    f"the {_service(slot)} does not serve {version}, and has not got on with it for {timeout_s:g} s"
                    f" (it says: {last}): look at {self.data_dir / 'logs' / _service(slot)}.log, or raise"
                    " trainer.swap_timeout_s; run again to go on"
                )
            time.sleep(_POLL_S)

    def _info(self, slot: str) -> ServiceInfo:
        service = _service(slot)
        transport = transport_of(self.data_dir, self.config)
        return get_info(service, require(self.data_dir, service).grpc, _INFO_S, transport)

    def _recorded(self) -> tuple[str, ...]:
        """What services are started with: what the rounds' own settings come from, not a file that lies about."""
        record = self.data_dir / RECORD_NAME
        return ("--config", str(record)) if record.exists() and not self.config else self._config()

    def _config(self) -> tuple[str, ...]:
        return ("--config", str(self.config)) if self.config else ()

    def _environ(self) -> dict[str, str]:
        return {**os.environ, DATA_DIR_VARIABLE: str(self.data_dir)}


def _service(slot: str) -> str:
    """Whose models the slot's versions are."""
    return _SERVICE_OF[kind_of(slot)]


def _models(info: ServiceInfo, collection: str) -> Sequence[str]:
    """The collection's, where the service has one for it, else all."""
    own = (f"collection.{collection}.{name}" for name in ("embedder", CROSS_ENCODER))
    return [info.details[name] for name in own if name in info.details] or [*info.models.values()]
