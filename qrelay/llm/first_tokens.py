"""First tokens as every endpoint shows them: the likeliest ones, or a text where none are shown.

A reply without a list of alternatives counts as text, under another decoding, so that the two kinds of measurement
never share an identity: with the first token's own log-probability where that is shown, else read strictly. Where
replies that hold an answer lack log-probabilities again and again, or the endpoint refuses the parameter, the judge
asks for text alone for a while, says so, and tries again later. A limit of `top_logprobs` that a refusal names is
taken, under a decoding of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from qrelay.errors import EndpointRefuses, MalformedInput
from qrelay.holds import Hold
from qrelay.http.refusals import ParameterRefused
from qrelay.llm.dialect import Answer, Asked, Dialect
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.replies import begins_thinking, without_thoughts

log = logging.getLogger(__name__)

LOGPROBS: Final = frozenset({"logprobs", "top_logprobs"})
"""The parameters without which a first token can be asked for too, as a text."""
_LACKING: Final = 8
"""Answers in a row without log-probabilities after which they are not asked for, for _TEXT_S seconds."""
_TEXT_S: Final = 600.0


class Sender(Protocol):
    """Sends a request, and gives what its reader gives. Raises as `Connection.ask`."""

    async def __call__(self, asked: Asked[Answer], may_refuse: frozenset[str] = frozenset()) -> Answer:
        """may_refuse: parameters whose refusal is a ParameterRefused."""


class FirstTokens:
    """See the module. `decodings`: with log-probabilities, then text where `accept_text` holds, then with as many
    log-probabilities as the endpoint turned out to allow."""

    def __init__(
        self,
        dialect: Dialect,
        ask: Sender,
        *,
        top: int,
        accept_text: bool,
        retry_refused_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """top: log-probabilities to ask for. accept_text: whether replies without any count."""
        self._dialect, self._ask, self._top, self._accept_text = dialect, ask, top, accept_text
        self._retry_refused_s = retry_refused_s
        self._clock = clock
        self._lacking = 0
        self._text_until = 0.0
        self._text_only: Hold | None = None
        exact = dialect.scored(top)
        self.decodings: tuple[str, ...] = (exact, dialect.strictly) if accept_text else (exact,)

    @property
    def notes(self) -> dict[str, str]:
        """What people should know of it now."""
        found = {"text only": str(self._text_only)} if self._text_only else {}
        if len(learned := self.decodings[1 + self._accept_text :]):
            found["top_logprobs"] = f"{self._top}, the endpoint's limit: {learned[-1]}"
        return found

    async def score(self, prompt: Prompt) -> TokenLogprobs:
        """Raises as `ask`; MalformedInput or EndpointRefuses where only a text came and none may count."""
        if self._clock() < self._text_until:
            return await self._score_strictly(prompt)
        try:
            reply = await self._score_exactly(prompt)
        except ParameterRefused as error:
            self._read_text(f"the endpoint refuses {error.parameter} with {error}")
            return await self._score_strictly(prompt)
        if reply.tokens:
            self._lacking, self._text_only = 0, None
            return reply
        if begins_thinking(reply.text) and not without_thoughts(reply.text):
            return reply
        if not self._accept_text and not reply.text.strip():
            raise MalformedInput("the reply holds no answer")
        if not self._accept_text:
            raise MalformedInput(
                "the reply gives no log-probabilities: choose an endpoint that does, or set "
                "judge.endpoint.accept_text to true to read its text (coarser, recorded in the decoding)"
            )
        if reply.text.strip():
            self._count_lacking()
        return await self._score_strictly(prompt)

    def _count_lacking(self) -> None:
        self._lacking += 1
        if self._lacking >= _LACKING:
            self._read_text(f"{self._lacking} answers in a row came without log-probabilities")

    def _read_text(self, why: str) -> None:
        """Ask for text alone for a while; without `accept_text` nobody may.

        Raises:
            EndpointRefuses: replies in text do not count.
        """
        if not self._accept_text:
            raise EndpointRefuses(
                f"{why}: choose an endpoint that gives log-probabilities, or set judge.endpoint.accept_text to true",
                retry_after_s=self._retry_refused_s,
            )
        hold = Hold.lasting(_TEXT_S, why)
        if self._text_only is None:
            log.warning("labels are read from text, %s", hold)
        self._text_only = self._text_only.going_on(hold) if self._text_only else hold
        self._text_until = self._clock() + _TEXT_S

    async def _score_exactly(self, prompt: Prompt) -> TokenLogprobs:
        """Asked for as many log-probabilities as the endpoint allows, which its refusals may say.

        Raises:
            ParameterRefused: it gives none.
        """
        _, *text = self.decodings[: 1 + self._accept_text]
        while True:
            top = self._top
            asked = self._dialect.scoring(prompt, top, alone=text[0] if text else "")
            try:
                return await self._ask(asked, may_refuse=LOGPROBS)
            except ParameterRefused as error:
                if self._top >= top and not (error.limit and error.limit < top):
                    raise
                self._lower(error.limit or self._top)

    def _lower(self, limit: int) -> None:
        """Ask for no more log-probabilities than the endpoint allows, under a decoding that says so."""
        if limit >= self._top:
            return
        log.warning(
            "the endpoint allows %d log-probabilities, not %d: labels get another decoding; set "
            "judge.endpoint.top_logprobs to %d to have one from the start",
            limit, self._top, limit,
        )  # fmt: skip
        self._top = limit
        self.decodings = (*self.decodings, self._dialect.scored(limit))

    async def _score_strictly(self, prompt: Prompt) -> TokenLogprobs:
        """Of a text that thinks first, what follows the thought counts; a thought without an end stays, no grade."""
        reply = await self._ask(self._dialect.strict(prompt))
        text = without_thoughts(reply.text) or reply.text
        return TokenLogprobs((), text, reply.prompt_tokens, reply.decoding)
