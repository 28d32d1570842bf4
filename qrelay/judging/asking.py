"""Questions to an engine from a command, each paid for once.

Every answer is a line of a journal beside the command's output, synced before the next questions are asked, under a
key of all that decides it: model, decoding, and every word of the question. The same command again, after a kill or
with more to do, reads from the journal what is there. Failures are not remembered: they are tried again here, and
by the next run. Where judging has a budget, its prompt tokens are counted in it, and end at it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from qrelay.chunks import chunks
from qrelay.errors import BudgetExhausted, ConfigError, MalformedInput, OnHold, QrelayError, TransientError
from qrelay.files import held, whole_lines
from qrelay.identity import digest
from qrelay.judging.budget import Budget
from qrelay.judging.failures import missing_of
from qrelay.llm.base import Backend
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS, Chat, Prompt, Reply, TokenLogprobs
from qrelay.parsing import json_document
from qrelay.types import Missing

ATTEMPTS: Final = 3
GIVE_UP: Final = 8
"""So many failures in a row that time may heal mean that the engine is away."""
RETRY_S: Final = 1.0
"""Seconds before the second attempt, unless the engine says how long; doubled before the third."""
_BATCH: Final = 16
_AT_ONCE: Final = 8
Wait = Callable[[float], Awaitable[None]]
_Question = TypeVar("_Question", Chat, Prompt)
_Answer = TypeVar("_Answer", Reply, TokenLogprobs)
_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


async def retried(
    ask: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer | QrelayError]]],
    questions: Sequence[_Question],
    *,
    wait: Wait = asyncio.sleep,
    retry_s: float = RETRY_S,
) -> list[_Answer | QrelayError]:
    """The answers. What failed and may succeed later is asked again, ATTEMPTS times in all, unless an endpoint is on
    hold."""
    replies = list(await ask(questions))
    for attempt in range(1, ATTEMPTS):
        again = [number for number, reply in enumerate(replies) if isinstance(reply, TransientError)]
        if not again or any(isinstance(reply, OnHold) for reply in replies):
            break
        asked_to = [e.retry_after_s for e in replies if isinstance(e, TransientError) and e.retry_after_s]
        await wait(max(asked_to, default=retry_s * 2 ** (attempt - 1)))
        for number, reply in zip(again, await ask([questions[n] for n in again]), strict=True):
            replies[number] = reply
    return replies


class Asker:
    """An engine and the journal of its answers; open it with `with`."""

    def __init__(
        self, backend: Backend, journal: Path, *, wait: Wait = asyncio.sleep, budget: Budget | None = None
    ) -> None:
        """journal: made where it is absent; a torn last line is cut off. wait: how a retry waits. budget: of what is
        asked; None: no limit.

        Raises:
            ConfigError: another process writes it.
            MalformedInput: it is no journal of answers.
        """
        self._backend, self._wait, self._budget = backend, wait, budget
        self._in_a_row = 0
        journal.parent.mkdir(parents=True, exist_ok=True)
        busy = ConfigError(f"another command writes {journal}: wait for it, or give another --out")
        self._lock = held(journal.with_name(f"{journal.name}.lock"), busy)
        self._lock.__enter__()
        try:
            self._known = _read(journal) if journal.exists() else {}
            self._file = journal.open("a", encoding="utf8")
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        self.asked = 0
        """Questions that the engine answered or failed, in this run."""

    def identity(self, prompt_hash: str) -> dict[str, str]:
        """Who answers, as outputs name it: part of the identity of whatever is made of the answers."""
        weights = self._backend.weights
        told = {"model": weights.model, "revision": weights.revision, "quantisation": weights.quantisation}
        return {**told, "prompt": prompt_hash}

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | Missing]:
        """A reply a chat. Raises as `score`."""
        return await self._answers(GENERATION, self._backend.generate, chats)

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | Missing]:
        """The distribution of each prompt's first reply token.

        Raises:
            TransientError: an endpoint is on hold, or the engine failed GIVE_UP times in a row; BudgetExhausted: the
                budget is used up. What was answered is in the journal.
        """
        return await self._answers(TOKEN_LOGPROBS, self._backend.score, prompts)

    async def _answers(
        self,
        kind: str,
        ask: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer | QrelayError]]],
        questions: Sequence[_Question],
    ) -> list[_Answer | Missing]:
        keys = [self._key(kind, question) for question in questions]
        fresh = [
            (key, each) for key, each in dict(zip(keys, questions, strict=True)).items() if key not in self._known
        ]
        failed: dict[str, Missing] = {}
        for part in chunks(fresh, _BATCH):
            await self._within_budget()
            replies = await retried(ask, [question for _, question in part], wait=self._wait)
            self._remember([key for key, _ in part], replies)
            if self._budget:
                await self._budget.count(sum(e.prompt_tokens for e in replies if not isinstance(e, QrelayError)))
            failed |= {
                key: missing_of(reply)
                for (key, _), reply in zip(part, replies, strict=True)
                if isinstance(reply, QrelayError)
            }
            self._give_up(replies)
        return [failed[key] if key in failed else self._known[key] for key in keys]

    async def _within_budget(self) -> None:
        try:
            if self._budget:
                await self._budget.check()
        except BudgetExhausted as error:
            more = "what was answered is kept, and the same command continues"
            raise BudgetExhausted(f"{error}: {more}", retry_after_s=error.retry_after_s) from error

    def _key(self, kind: str, question: Chat | Prompt) -> str:
        weights = self._backend.weights
        who = (weights.model, weights.revision, weights.quantisation, self._backend.decodings(kind)[0])
        return digest(kind, *who, json.dumps(asdict(question), sort_keys=True))

    def _remember(self, keys: Sequence[str], replies: Sequence[Reply | TokenLogprobs | QrelayError]) -> None:
        self.asked += len(keys)
        for key, reply in zip(keys, replies, strict=True):
            if not isinstance(reply, QrelayError):
                self._known[key] = reply
                self._file.write(json.dumps({"key": key, "answer": asdict(reply)}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _give_up(self, replies: Sequence[object]) -> None:
        for reply in replies:
            self._in_a_row = self._in_a_row + 1 if isinstance(reply, TransientError) else 0
            if isinstance(reply, OnHold) or self._in_a_row >= GIVE_UP:
                raise TransientError(f"{reply}: fix that or wait, and run the same command again, which continues")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.__exit__(None, None, None)


async def side_by_side(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[_Done]], advance: Callable[[float], None]
) -> list[_Done]:
    """The work on every item, in order, some at once, so that a remote engine has enough to do. `advance` is told of
    each that is done. Raises the first error; what is under way then is cancelled."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _Item) -> _Done:
        async with room:
            done = await work(item)
        advance(1)
        return done

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]


def _read(journal: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, line in enumerate(whole_lines(journal), 1):
        try:
            row = json_document(line)
            found[str(row["key"])] = _answer(row["answer"])
        except (ValueError, TypeError, KeyError) as error:
            raise MalformedInput(
                f"{journal}:{number} is no line of a journal of answers ({error}): remove the file to ask afresh"
            ) from error
    return found


def _answer(told: Mapping[str, Any]) -> Reply | TokenLogprobs:
    if "tokens" not in told:
        return Reply(**told)
    tokens = tuple((str(text), float(logprob)) for text, logprob in told["tokens"])
    return TokenLogprobs(**{**told, "tokens": tokens})
