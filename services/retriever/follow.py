"""Follows the registry: which model shall serve, and what is done about each collection that another model serves.

A collection wants the version of its own slot, else the default slot's, else the configured model. One look, now and
then beside the requests, for each collection:

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
from typing import Final, NamedTuple

from qrelay.errors import CorpusIndexError, QrelayError
from qrelay.index.builder import Builder
from qrelay.index.collections import Collections
from qrelay.index.engine import Followed
from qrelay.index.reembed import only_one, under_way
from qrelay.index.settings import RetrieverSettings
from qrelay.models.registry import Serving
from qrelay.models.served import Embedders, Wanted, registered

log = logging.getLogger(__name__)

RETRY_LOOKS: Final = 12
SAY_EVERY_S: Final = 30.0


class _Behind(NamedTuple):
    """A collection that has no version of the model that it wants."""

    home: Path
    wanted: str


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
        self._problem = ""
        self._wanted = Wanted(Serving(None, {}), embedders.configured)
        self._behind: dict[str, _Behind] = {}

    def look(self) -> None:
        """See the module. Raises nothing: what is wrong is in `details` and in the log."""
        try:
            self._behind, problems = self._catch_up()
            problems.append(self._build())
            self._reload()
            self._say("\n".join(problem for problem in problems if problem))
        except (QrelayError, OSError) as error:
            self._say(str(error))

    def switch_back(self) -> str:
        """Before the first load: switch where a version of the wanted model is there. Answers the model that a
        collection without an index will want; "": the configured one.

        Raises:
            ModelError: the registry's history is damaged, or the configured model is absent.
        """
        self._catch_up()
        default = self._wanted.serving.default
        return default.fingerprint if default else ""

    def _catch_up(self) -> tuple[dict[str, _Behind], list[str]]:
        """(the collections that have no version of their wanted model, what is wrong with others)."""
        self._wanted = wanted = self._embedders.wanted()
        behind, problems = self._versions.catch_up(wanted.of, _concerns)
        return {name: _Behind(home, wanted.of(name)) for name, home in behind.items()}, problems

    def _reload(self) -> None:
        """Load what is new; what could not be loaded, now and then."""
        now = self._clock()
        again = bool(self._index.problems) and now >= self._again_at
        if again:
            self._again_at = now + RETRY_LOOKS * self._settings.registry_poll_s
        self._index.reload(again=again)

    def _build(self) -> str:
        """Start, end or let go on the process that re-embeds. Answers what is wrong, or ""."""
        builder, targets = self._builder, {each.wanted: None for each in self._behind.values()}
        builder.poll()
        builder.forget_others(targets)
        if not self._settings.reembed:
            return builder.problem
        try:
            for target in builder.due(targets, self._clock()):
                own = {name: each.home for name, each in self._behind.items() if each.wanted == target}
                free = [name for name, home in own.items() if home.is_dir() and _is_free(home)]
                if free and not builder.running:
                    builder.start(target, free, self._clock())
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
        for name, (home, wanted) in self._behind.items():
            work = under_way(home, wanted)
            if work is not None:
                done, total = work
                found[name] = f"{done / max(1, total):.0%} ({done:,} of {total:,} passages) for {wanted}"
            elif self._settings.reembed and home.is_dir():
                found[name] = f"0% for {wanted}, {self._builder.cpu_s:.0f} s of processor time so far"
            else:
                model = "registry" if registered(wanted) else self._settings.embedder
                found[name] = f"waits for `qrelay index reembed --model {model}`"
        return found

    def details(self) -> dict[str, str]:
        """For GetInfo: the wanted versions, how far each collection is that another model serves, and what is wrong.
        `registry.version` is the default slot's; `registry.version.NAME` that of a collection's own."""
        found = {f"reembedding.{name}": text for name, text in self._progress().items()}
        serving = self._wanted.serving
        if serving.default:
            found["registry.version"] = serving.default.version
        served = self._index.served
        found |= {f"registry.version.{name}": own.version for name, own in serving.own.items() if name in served}
        if self._problem:
            found["registry.problem"] = self._problem
        return found

    def close(self) -> None:
        """End the process that re-embeds, if it is ours; another run goes on where it was."""
        self._builder.stop()


def _concerns(embedder: str, wanted: str) -> bool:
    """Whether the registry has a say: it serves a version, or the index is of one."""
    return bool(registered(embedder) or registered(wanted))


def _is_free(home: Path) -> bool:
    """Whether no process re-embeds the collection at this moment."""
    try:
        with only_one(home):
            return True
    except CorpusIndexError:
        return False
