"""The feed of a scene: `qrelay feed --follow` on a file that grows portion by portion, started again when it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.pipeline.harness import COLLECTION


class Feeding:
    """One file, one process at a time."""

    def __init__(self, file: Path, environ: Mapping[str, str], queries: Mapping[str, str], portions: int) -> None:
        self.file = file
        self._environ = {**os.environ, **environ}
        self._rows = [json.dumps({"query_id": query_id, "text": text}) + "\n" for query_id, text in queries.items()]
        self._portion = -(-len(self._rows) // portions)
        self._written = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        file.write_text("")

    def start(self) -> None:
        """Follow the file, from its beginning: what was accepted before is known."""
        command = ["feed", str(self.file), "--follow", "--collection", COLLECTION]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", *command],
            env=self._environ,
            stdout=subprocess.DEVNULL,
            stderr=self.file.with_suffix(".log").open("ab"),
        )

    def portion(self) -> None:
        """Write the next queries; start the feed again if it died."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        rows = self._rows[self._written : self._written + self._portion]
        self._written += len(rows)
        with self.file.open("a") as file:
            file.writelines(rows)

    def kill(self) -> bool:
        """SIGKILL; whether it ran."""
        ran = self._process is not None and self._process.poll() is None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return ran

    def finish(self) -> None:
        """Write what is left and end the process; what it did not publish is for the next feed."""
        while self._written < len(self._rows):
            self.portion()
        self.kill()
