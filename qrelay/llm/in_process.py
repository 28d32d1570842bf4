"""What engines in this process share: texts to token ids, questions to the engine's thread, rows to answers.

An engine gives a `Rows`: token sequences in, log-probabilities over the vocabulary out, at the positions that are
read. Everything else, from templates to what a cancelled call gives back, is the same for all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.llm.base import TOP_LOGPROBS, Local, used_after_close
from qrelay.llm.exchange import (
    PROMPT_LOGPROBS,
    SHARED_CONTEXT,
    TOKEN_LOGPROBS,
    Continuation,
    Prompt,
    TargetLogprobs,
    TokenLogprobs,
)
from qrelay.llm.prefixes import TokenQuery
from qrelay.llm.replies import first_token
from qrelay.llm.tokens import Tokens

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Rows(Protocol):
    """The forward passes of one model. Use from one thread."""

    def logprobs(self, queries: Sequence[TokenQuery]) -> Iterator[list[Any]]:
        """For each group of neighbours of `queries`, in order: a tensor a query, shape (wanted positions,
        vocabulary), natural log-probabilities in float32 of the token after each wanted position, on the CPU.

        Raises:
            RuntimeError: what the engine throws.
        """

    def forget(self) -> None:
        """Free what is kept between calls."""


class InProcess(Local):
    """See the module. A subclass loads `_rows`, `_tokens` and `_decodings` in its executor's one thread."""

    _rows: Rows | None
    _tokens: Tokens
    _remedy: str
    """What to do when the engine fails, ending an error's sentence."""

    def _start(self, name: str, load: Callable[[], None], *, prepare: Callable[[], None] = lambda: None) -> None:
        """Run `load` in the engine's own thread, which reports to this one's listener; raises what it raises.
        prepare: what that thread does first."""
        self._executor = ThreadPoolExecutor(1, name, initializer=prepare)
        try:
            self._executor.submit(contextvars.copy_context().run, load).result()
        except BaseException:
            self._executor.shutdown()
            raise

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt. Cancelling ends the call after the group that is being computed."""
        return await self._run(self._score, prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation, as `score`."""
        return await self._run(self._loglikelihood, continuations)

    async def _run(
        self, answer: Callable[[Sequence[Question], threading.Event], list[Answer]], questions: Sequence[Question]
    ) -> list[Answer]:
        self._open_rows()
        if not questions:
            return []
        cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, answer, questions, cancelled)
        finally:
            cancelled.set()

    def _score(self, prompts: Sequence[Prompt], cancelled: threading.Event) -> list[TokenLogprobs | QrelayError]:
        read = [self._tokens.of_chat(prompt.messages()) for prompt in prompts]
        labels = iter(
            [prompt.labels for prompt, each in zip(prompts, read, strict=True) if isinstance(each, TokenQuery)]
        )
        return self._answers(
            read, cancelled, lambda query, logprobs: self._first_token(query, logprobs, next(labels))
        )

    def _first_token(self, query: TokenQuery, logprobs: Any, labels: tuple[str, ...]) -> TokenLogprobs | QrelayError:
        """The likeliest tokens and those of the labels, best first: a label at the twentieth place must not come
        and go with the last digits."""
        row = logprobs[0]
        ids = {*row.topk(TOP_LOGPROBS).indices.tolist(), *self._tokens.spellings(labels)}
        best = sorted(((float(row[token]), token) for token in ids), reverse=True)
        tokens = tuple((self._tokens.text([token]), logprob) for logprob, token in best)
        return first_token(tokens, tokens[0][0], len(query.ids), self._decodings[TOKEN_LOGPROBS])

    def _loglikelihood(
        self, continuations: Sequence[Continuation], cancelled: threading.Event
    ) -> list[TargetLogprobs | QrelayError]:
        """Computed by length: what is alike in length is padded little. Targets of one context stay together, so that
        it is read once."""
        read = [self._tokens.of_continuation(each.context, each.target, shared=each.shared) for each in continuations]
        order = sorted(range(len(read)), key=lambda n: _by_length(read[n]))
        answers = dict(zip(order, self._answers([read[n] for n in order], cancelled, self._target), strict=True))
        return [answers[n] for n in range(len(read))]

    def _target(self, query: TokenQuery, logprobs: Any) -> TargetLogprobs:
        target = query.ids[query.wanted.start + 1 :]
        values = tuple(float(row[token]) for row, token in zip(logprobs, target, strict=True))
        shared = query.shared and SHARED_CONTEXT in self._decodings
        return TargetLogprobs(values, len(query.ids), self._decodings[SHARED_CONTEXT if shared else PROMPT_LOGPROBS])

    def _answers(
        self,
        read: Sequence[TokenQuery | QrelayError],
        cancelled: threading.Event,
        answer: Callable[[TokenQuery, Any], Answer],
    ) -> list[Answer | QrelayError]:
        """An answer for each that could be read; what the engine throws costs the rest of the call its answers."""
        queries = [each for each in read if isinstance(each, TokenQuery)]
        answers: list[Answer | QrelayError] = []
        try:
            for logprobs in self._open_rows().logprobs(queries):
                answers += [answer(queries[len(answers) + n], each) for n, each in enumerate(logprobs)]
                if cancelled.is_set():
                    break
        except RuntimeError as error:  # the engine's own: out of memory, a lost device
            self._open_rows().forget()
            answers = [*answers, *[self._failed(error)] * (len(queries) - len(answers))]
        answered = iter(answers)
        stopped = BackendUnavailable("the call was cancelled")
        return [next(answered, stopped) if isinstance(each, TokenQuery) else each for each in read]

    def _open_rows(self) -> Rows:
        if self._rows is None:
            raise used_after_close()
        return self._rows

    def _failed(self, error: RuntimeError) -> QrelayError:
        return BackendUnavailable(f"the engine failed: {type(error).__name__}; {self._remedy}")

    def close(self) -> None:
        """Let the running group end, free the model."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._rows is not None:
            self._rows.forget()
        self._rows = None


def _by_length(query: TokenQuery | QrelayError) -> tuple[int, tuple[int, ...], int]:
    if isinstance(query, QrelayError):
        return 0, (), 0
    return query.shareable, query.ids[: query.shareable + 1], len(query.ids)
