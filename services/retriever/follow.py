"""Follows the registry: which model shall serve, and what is done about each collection that another model serves.

One look, now and then beside the requests:

1. a version of the same passages with the wanted model's vectors is there: it is the current one from now on
2. none is: one process among all replicas that share the index folder re-embeds (`qrelay index reembed`, at low
   priority), and makes its new version the current one when it is whole
3. new current versions are loaded, whoever made them

The embedded engine's current version is the one that CURRENT names in the folder, Milvus's the one of its alias.

Meanwhile, and where any of it fails, the former engine and its embedder go on serving together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qrelay.errors import CorpusIndexError, QrelayError
from qrelay.index.builder import Builder
from qrelay.index.collections import Collections
from qrelay.index.engine import Followed
from qrelay.index.reembed import only_one, under_way
from qrelay.index.settings import RetrieverSettings
from qrelay.models.served import Embedders, registered

log = logging.getLogger(__name__)

RETRY_LOOKS: Final = 12
SAY_EVERY_S: Final = 30.0


class Follower:
    """See the module."""

    def __init__(
        self,
        settings: RetrieverSettings,
        versions: Followed,
        index: Collections,
        embedders: Embedders,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._versions, self._index = settings, versions, index
        self._embedders, self._clock = embedders, clock
        self._builder = Builder(settings, embedders.registry.folder)
        self._again_at = self._said_at = 0.0
        self._wanted = self._problem = ""
        self._behind: dict[str, Path] = {}

    def look(self) -> None:
        """See the module. Raises nothing: what is wrong is in `details` and in the log."""
        try:
            self._wanted = self._embedders.wanted()
            self._behind, problems = self._versions.catch_up(self._wanted, self._concerns)
            problems.append(self._build())
            self._reload()
            self._say("\n".join(problem for problem in problems if problem))
        except (QrelayError, OSError) as error:
            self._say(str(error))

    def switch_back(self) -> str:
        """Before the first load: switch where a version of the wanted model is there. Answers that model.

        Raises:
            ModelError: the registry's history is damaged, or the configured model is absent.
        """
        self._wanted = self._embedders.wanted()
        self._versions.catch_up(self._wanted, self._concerns)
        return self._wanted

    def _reload(self) -> None:
        """Load what is new; what could not be loaded, now and then."""
        now = self._clock()
        again = bool(self._index.problems) and now >= self._again_at
        if again:
            self._again_at = now + RETRY_LOOKS * self._settings.registry_poll_s
        self._index.reload(again=again)

    def _concerns(self, embedder: str) -> bool:
        """Whether the registry has a say: it serves a version, or the index is of one."""
        return bool(registered(embedder) or registered(self._wanted))

    def _build(self) -> str:
        """Start, end or let go on the process that re-embeds. Answers what is wrong, or ""."""
        builder = self._builder
        builder.poll()
        if builder.target != self._wanted or not self._behind:
            builder.stop()
        if builder.running or not self._behind or not self._settings.reembed or not builder.due(self._clock()):
            return builder.problem
        try:
            free = [name for name, home in self._behind.items() if home.is_dir() and _is_free(home)]
            if free:
                builder.start(self._wanted, free, self._clock())
        except OSError as error:
            return (
                f"this service cannot re-embed in {self._settings.index_folder} ({error}): let it write there, or "
                "set retriever.reembed to false and run `qrelay index reembed` elsewhere"
            )
        return builder.problem

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.error("%s", problem)
        self._problem = problem
        if self._behind and self._clock() >= self._said_at:
            self._said_at = self._clock() + SAY_EVERY_S
            for name, text in self._progress().items():
                log.info("re-embedding %s: %s", name, text)

    def _progress(self) -> dict[str, str]:
        found = {}
        for name, home in self._behind.items():
            work = under_way(home, self._wanted)
            if work is not None:
                done, total = work
                found[name] = f"{done / max(1, total):.0%} ({done:,} of {total:,} passages) for {self._wanted}"
            elif self._settings.reembed and home.is_dir():
                found[name] = f"0% for {self._wanted}"
            else:
                model = "registry" if registered(self._wanted) else self._settings.embedder
                found[name] = f"waits for `qrelay index reembed --model {model}`"
        return found

    def details(self) -> dict[str, str]:
        """For GetInfo: the wanted model, how far each collection is that another model serves, and what is wrong."""
        found = {f"reembedding.{name}": text for name, text in self._progress().items()}
        if version := registered(self._wanted):
            found["registry.version"] = version
        if self._problem:
            found["registry.problem"] = self._problem
        return found

    def close(self) -> None:
        """End the process that re-embeds, if it is ours; another run goes on where it was."""
        self._builder.stop()


def _is_free(home: Path) -> bool:
    """Whether no process re-embeds the collection at this moment."""
    try:
        with only_one(home):
            return True
    except CorpusIndexError:
        return False
