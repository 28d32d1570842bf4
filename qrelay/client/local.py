"""An installation of one's own: `qrelay up` on a data folder, for as long as its client is open.

The services end with the client: it closes the pipe that `qrelay up` reads from, and so does the system where this
process is killed. Labels, queues and indexes stay in the folder.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qrelay.client.places import SERVICES
from qrelay.errors import ConfigError, SetupError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.files import AtomicFiles, write_atomic
from qrelay.identity import digest, require_collection
from qrelay.rundir import endpoints

log = logging.getLogger(__name__)

Corpus = str | Path | Iterable[Mapping[str, Any]] | Mapping[str, str]
"""What `qrelay index build` reads; or documents: objects with `_id`, `title` and `text`, or id -> text."""
Settings = str | Path | Mapping[str, Any]
"""A settings file, or what would stand in it."""
ALL_READY: Final = b"all ready"
_POLL_S: Final = 0.1
_WORDS: Final = 2000
"""Characters of a command's last words in an error."""


class Installation:
    """See the module."""

    def __init__(self, data_dir: Path, settings: Settings | None = None, *, reuse: bool = False) -> None:
        """reuse: services that run from the folder already are used, and left running."""
        self.data_dir = data_dir.resolve()
        self._settings, self._reuse = settings, reuse
        self._process: subprocess.Popen[bytes] | None = None

    def index(self, corpus: Corpus, collection: str) -> None:
        """Build the collection's index, unless this one is built. Raises SetupError: it cannot; its last words."""
        require_collection(collection)
        source = self._source(corpus, collection)
        done = self._command("index", "build", source, "--collection", collection)
        if done.returncode not in (0, EXIT_PARTIAL):
            raise SetupError(f"no index of {source}: {_last_words(done.stderr)}")

    def start(self) -> None:
        """Return when all services are ready, however long that takes while they get on.

        Raises:
            ConfigError: services run from this folder already, and are not to be used.
            SetupError: `qrelay up` ended; its last words are in the text.
        """
        running = [name for name in SERVICES if name in endpoints(self.data_dir)]
        if running and not self._reuse:
            raise ConfigError(
                f"services run from {self.data_dir} already ({', '.join(running)}): give reuse=True to use them,"
                " another data_dir, or stop them with `qrelay down`"
            )
        if len(running) < len(SERVICES):
            self._up()

    def stop(self) -> None:
        """End what was started: services drain first. Returns when all have ended."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        if process.wait() < 0:  # it was killed, and could not end its services
            done = self._command("down")
            if done.returncode:
                log.warning("services of %s may still run: %s", self.data_dir, _last_words(done.stderr))

    def _up(self) -> None:
        path = self.data_dir / "logs" / "up.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as output:
            self._process = subprocess.Popen(
                self._line("up", "--port-base", "0", "--while-stdin", *self._config()),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._await_ready(path, self._process)
        except BaseException:
            self.stop()
            raise

    def _await_ready(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        said = b""
        with path.open("rb") as lines:
            while ALL_READY not in said:
                code = process.poll()  # before the read, so that its last words are in it
                if new := lines.read():
                    log.info("%s", new.decode("utf8", "replace").rstrip())
                    said += new
                elif code is not None:
                    raise SetupError(f"`qrelay up` ended with {code}: {_last_words(said.decode('utf8', 'replace'))}")
                else:
                    time.sleep(_POLL_S)

    def _source(self, corpus: Corpus, collection: str) -> str:
        """What `qrelay index build` reads; documents become a file."""
        if isinstance(corpus, str | Path):
            return str(corpus)
        documents = (
            [{"_id": name, "text": text} for name, text in corpus.items()] if isinstance(corpus, Mapping) else corpus
        )
        lines = "".join(f"{json.dumps(dict(each), ensure_ascii=False)}\n" for each in documents)
        path = self.data_dir / "corpora" / f"{collection}-{digest(lines)[:16]}.jsonl"
        write_atomic(path, lines)
        return str(path)

    def _config(self) -> Sequence[str]:
        if self._settings is None:
            return ()
        if isinstance(self._settings, str | Path):
            return "--config", str(self._settings)
        path = self.data_dir / "client.yaml"
        with AtomicFiles() as files:
            file = files.open(path)
            os.fchmod(file.fileno(), 0o600)  # an address may hold a password
            file.write(json.dumps(self._settings, default=str, indent=2).encode())  # JSON is YAML
            files.commit()
        return "--config", str(path)

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = self._config() if arguments[0] != "down" else ()
        return subprocess.run(
            self._line(*arguments, *config), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def _line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "qrelay.cli.main", *arguments, "--data-dir", str(self.data_dir)]


def _last_words(said: str) -> str:
    return said.strip()[-_WORDS:] or "(it said nothing)"
