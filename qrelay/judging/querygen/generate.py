"""Passages in, outcomes out: ask, read, check, let the retriever bring it back, remember.

A passage is asked about once. A transient failure of the engine is tried again (`../asking.py`); what fails for good
is MISSING with its reason and counted, and a later run with --resume asks again. Where `GIVE_UP` passages in
a row are missing the engine is taken to be away, and the run stops with its error; so it does at once where an
endpoint asks for a long pause or refuses the key or a setting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from qrelay.errors import OnHold, QrelayError, TransientError
from qrelay.judging.asking import GIVE_UP, RETRY_S, Wait, retried
from qrelay.judging.failures import missing_of
from qrelay.judging.querygen.faults import Faults
from qrelay.judging.querygen.journal import KEPT, MISSING, REJECTED, Journal, Outcome
from qrelay.judging.querygen.prompt import MAX_TOKENS, chat, read_question
from qrelay.llm.base import Backend
from qrelay.llm.exchange import Reply
from qrelay.types import Passage

LOST: Final = "round_trip"
"""The reason where the retriever does not bring the document back."""
_DETAIL_CHARS: Final = 300


class RoundTrip(Protocol):
    """The retriever, asked with a question."""

    async def ranks(self, questions: Sequence[str], doc_ids: Sequence[str]) -> list[int]:
        """The place of each question's document among the passages found for it, from 1; 0: not among them. Raises
        a QrelayError where the retriever does not answer or does not serve the collection."""


class Generator:
    """Asks about passages until `n` questions are kept."""

    def __init__(
        self,
        backend: Backend,
        round_trip: RoundTrip | None,
        *,
        wait: Wait = asyncio.sleep,
        retry_s: float = RETRY_S,
    ) -> None:
        """round_trip: None keeps every question without a fault. wait: how a retry waits."""
        self._backend, self._round_trip = backend, round_trip
        self._wait, self._retry_s = wait, retry_s
        self._faults = Faults()
        self._in_a_row = 0
        self._held = ""

    async def run(
        self, passages: Sequence[Passage], journal: Journal, n: int, *, batch: int, progress: Callable[[], None]
    ) -> None:
        """Until `n` are kept or no passage is left; what the journal holds is not asked again, unless it is missing.

        Raises:
            QrelayError: the retriever does not answer, the engine did not for `GIVE_UP` passages in a row, or an
                endpoint is on hold. The journal holds what was done.
        """
        for each in journal.outcomes.values():
            if each.outcome == KEPT or each.reason == LOST:
                self._faults.remember(each.question)
        settled = {each.passage_id for each in journal.outcomes.values() if each.outcome != MISSING}
        pending = [passage for passage in passages if passage.passage_id not in settled]
        kept = len(journal.of(KEPT))
        while pending and kept < n:
            group = pending[: min(batch, n - kept)]
            pending = pending[len(group) :]
            outcomes = await self._outcomes(group)
            journal.append(outcomes)
            kept += sum(each.outcome == KEPT for each in outcomes)
            progress()
            self._give_up(outcomes)

    async def _outcomes(self, group: Sequence[Passage]) -> list[Outcome]:
        began = time.monotonic()
        replies = await self._ask(group)
        read = [self._read(passage, reply) for passage, reply in zip(group, replies, strict=True)]
        asked = [number for number, each in enumerate(read) if each.outcome == KEPT]
        if self._round_trip and asked:
            found = [read[number] for number in asked]
            ranks = await self._round_trip.ranks([o.question for o in found], [o.doc_id for o in found])
            for number, outcome, rank in zip(asked, found, ranks, strict=True):
                lost = replace(outcome, outcome=REJECTED, reason=LOST)
                read[number] = replace(outcome, rank=rank) if rank else lost
        seconds = round((time.monotonic() - began) / len(group), 3)
        return [replace(each, seconds=seconds) for each in read]

    async def _ask(self, group: Sequence[Passage]) -> list[Reply | QrelayError]:
        chats = [chat(passage) for passage in group]
        replies = await retried(self._backend.generate, chats, wait=self._wait, retry_s=self._retry_s)
        self._held = next((str(reply) for reply in replies if isinstance(reply, OnHold)), "")
        return replies

    def _read(self, passage: Passage, reply: Reply | QrelayError) -> Outcome:
        outcome = Outcome(passage.passage_id, passage.doc_id, REJECTED)
        if isinstance(reply, QrelayError):
            missing = missing_of(reply)
            return replace(outcome, outcome=MISSING, reason=missing.reason, detail=missing.detail[:_DETAIL_CHARS])
        question = "" if reply.completion_tokens >= MAX_TOKENS else read_question(reply.text)
        if not question:
            return replace(outcome, reason="unparseable", detail=reply.text[:_DETAIL_CHARS])
        fault = self._faults.find(question, passage)
        if fault:
            return replace(outcome, reason=fault, question=question)
        self._faults.remember(question)
        return replace(outcome, outcome=KEPT, question=question)

    def _give_up(self, outcomes: Sequence[Outcome]) -> None:
        for each in outcomes:
            self._in_a_row = self._in_a_row + 1 if each.outcome == MISSING else 0
        if self._held:
            raise TransientError(f"{self._held}: fix that or wait, and continue with --resume")
        if self._in_a_row >= GIVE_UP:
            last = outcomes[-1]
            raise TransientError(
                f"the last {self._in_a_row} passages got no answer from the model ({last.reason}: {last.detail}): "
                "fix that, and continue with --resume"
            )
