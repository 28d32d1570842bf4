"""How one endpoint is asked for log-probabilities: as the settings say, as was written down, or as it turns out.

A way is part of a label's identity, so it is decided once for all who ask the same model at the same endpoint, and
stays whatever is found out later: it is written down where the labels are (the judgment cache, which replicas and
restarts share), and the first who writes decides. A model that has labels already is asked as these were. Nothing is
asked before the way is known, so two replicas never make labels of two identities.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qrelay.errors import BackendUnavailable
from qrelay.llm.base import Weights
from qrelay.llm.exchange import PROMPT_LOGPROBS, TOKEN_LOGPROBS
from qrelay.parsing import json_document

log = logging.getLogger(__name__)

AUTO: Final = "auto"
TOKEN_IDS: Final = "token_ids"  # noqa: S105 (no password)
SHARES: Final = "generative_scoring"
TOP: Final = "top"
ECHO: Final = "echo"
OFF: Final = "off"
WAYS: Final = {TOKEN_LOGPROBS: (TOKEN_IDS, SHARES, TOP), PROMPT_LOGPROBS: (TOKEN_IDS, ECHO, OFF)}
"""By capability, the best first; what each is: `probing`."""
_SAID: Final = {TOKEN_LOGPROBS: "label log-probabilities", PROMPT_LOGPROBS: "prompt log-probabilities"}
_THERE: Final = "labels of this model exist that were asked so"


@dataclass(frozen=True, slots=True)
class Way:
    """How an endpoint is asked for one capability. name: of WAYS. why: for people."""

    name: str
    why: str

    def as_text(self) -> str:
        """For a notebook."""
        return json.dumps({"way": self.name, "why": self.why})


class Notebook(Protocol):
    """Where ways are written down. Methods block, and raise BackendUnavailable where it cannot be reached."""

    def recall(self, key: str) -> str | None:
        """What stands under the key."""

    def note(self, key: str, text: str) -> str:
        """Write; the first text of a key stays. What stands now."""

    def has_labels(self, weights: Weights, decodings: Sequence[str]) -> bool:
        """Whether this model ever made labels under one of these decodings."""


class Ways:
    """See the module. Use from one event loop at a time."""

    def __init__(
        self,
        weights: Weights,
        chosen: Mapping[str, str],
        decodings: Mapping[str, Mapping[str, Sequence[str]]],
        notebook: Notebook | None = None,
    ) -> None:
        """By capability: `chosen`, a way or AUTO; `decodings`, way -> those of the labels that may be there from
        before, the oldest way first."""
        self._weights, self._decodings, self._notebook = weights, decodings, notebook
        self._known = {capability: Way(name, "") for capability, name in chosen.items() if name != AUTO}
        self._learning: dict[str, asyncio.Task[Way]] = {}

    def name(self, capability: str) -> str:
        """The way of a capability, AUTO until it is known."""
        return self._known[capability].name if capability in self._known else AUTO

    @property
    def notes(self) -> dict[str, str]:
        """What was found out, for people."""
        return {_SAID[capability]: f"{way.name} ({way.why})" for capability, way in self._known.items() if way.why}

    async def settle(self, capability: str, find: Callable[[], Awaitable[Way]]) -> None:
        """Know the way, by `find` where it is nowhere written down; who comes meanwhile waits for the same answer.
        Raises what `find` raises, and BackendUnavailable where the notebook does."""
        if capability in self._known:
            return
        task = self._learning.get(capability)
        loop = asyncio.get_running_loop()
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._learning[capability] = loop.create_task(self._settled(capability, find))
        self._known[capability] = await asyncio.shield(task)

    async def _settled(self, capability: str, find: Callable[[], Awaitable[Way]]) -> Way:
        way = await asyncio.to_thread(self._recalled, capability)
        if way is None:
            way = await asyncio.to_thread(self._noted, capability, await find())
            log.info("%s: %s (%s)", _SAID[capability], way.name, way.why)
        return way

    def _recalled(self, capability: str) -> Way | None:
        if self._notebook is None:
            return None
        text = self._notebook.recall(self._key(capability))
        if text is not None:
            return read_way(text, WAYS[capability])
        for name, decodings in self._decodings[capability].items():
            if self._notebook.has_labels(self._weights, decodings):
                return self._noted(capability, Way(name, _THERE))
        return None

    def _noted(self, capability: str, way: Way) -> Way:
        if self._notebook is None:
            return way
        return read_way(self._notebook.note(self._key(capability), way.as_text()), WAYS[capability])

    def _key(self, capability: str) -> str:
        own, oldest = self._weights, next(iter(self._decodings[capability].values()))
        return json.dumps([capability, own.model, own.revision, own.quantisation, oldest[0]])


def read_way(text: str, ways: Sequence[str]) -> Way:
    """What was written down.

    Raises:
        BackendUnavailable: that is none of `ways`.
    """
    try:
        found = json_document(text)
        if found["way"] not in ways:
            raise ValueError("an unknown way")
        return Way(str(found["way"]), str(found["why"]))
    except (ValueError, TypeError, KeyError) as error:
        raise BackendUnavailable(
            "the judgment cache's record of what the endpoint can do is damaged or of a newer qrelay: set "
            "judge.endpoint.label_logprobs and judge.endpoint.prompt_logprobs, or use another judge.cache"
        ) from error
