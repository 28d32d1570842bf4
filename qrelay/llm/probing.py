"""What an endpoint can do, found out by asking: tiny questions whose answers are compared with each other.

A server may give what it is asked for, refuse it, ignore it, or answer with other numbers. Each way of asking is
tried beside the plain one, and counts as given only where both agree:

    labels    token_ids            `logprob_token_ids`, against the first token's ordinary log-probabilities
              generative_scoring   `/generative_scoring`, against the same
              top                  the ordinary ones: what every endpoint gives, or text
    targets   token_ids            `prompt_logprobs` of ids: the token that the model just chose, put at the prompt's
                                   end, must have the log-probability that it was chosen with
              echo                 the same with `echo` and one text
              off                  none

Of an endpoint that does not answer a plain question nothing is decided: its error is raised. All of it costs some
ten requests of thirty tokens, where an endpoint knows no `/tokenize` two of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from qrelay.errors import QrelayError
from qrelay.http.connection import Connection
from qrelay.http.refusals import ParameterRefused
from qrelay.llm import by_id
from qrelay.llm.dialect import COMPLETIONS, Asked, Dialect
from qrelay.llm.exchange import Continuation, Prompt, TokenLogprobs
from qrelay.llm.first_tokens import LOGPROBS
from qrelay.llm.ways import ECHO, OFF, SHARES, TOKEN_IDS, TOP, Way

T = TypeVar("T")

TOLERANCE: Final = 4e-2
"""Of probability: two batches of one server differ by less."""
NATS: Final = 0.15
"""The same of a log-probability."""
_PROMPT: Final = Prompt("Reply with one word.", "Is water wet? ", "YES or NO:", ("NO", "YES"), "", "")
_TEXT: Final = "The days of the week are Monday, Tuesday, Wednesday, Thursday,"
_GIVEN: Final = "given"
_WRONG: Final = "wrong (its numbers are not those of the plain answer)"
_IGNORED: Final = "ignored"


@dataclass(slots=True)
class Prober:
    """Asks one endpoint; see the module. advice: see `Connection.ask`."""

    dialect: Dialect
    connection: Connection
    advice: Callable[[str], str]
    found: dict[str, str] = field(default_factory=dict)
    """What was tried -> what came of it."""

    async def labels(self, top: int) -> Way:
        """How the log-probabilities of labels are asked for. Raises as `Connection.look`, or what a plain question
        raises."""
        plain = await self._plain(top)
        spellings = _PROMPT.labels
        listed = await self._tried("/tokenize", by_id.tokenise(self.dialect, by_id.listed(spellings)))
        table = by_id.table_of(listed, spellings) if listed else {}
        if not plain.tokens:
            self.found["log-probabilities of the plain answer"] = "none"
        if not plain.tokens or not table:
            return await self._decided(TOP)
        exact = await self._tried("logprob_token_ids", by_id.labels(self.dialect, _PROMPT, table))
        if exact and self._agrees("logprob_token_ids", _apart(plain, exact, len(table)) <= TOLERANCE):
            return await self._decided(TOKEN_IDS)
        exact = await self._shares(table)
        if exact and self._agrees("/generative_scoring", _apart(plain, exact, len(table)) <= TOLERANCE):
            return await self._decided(SHARES)
        return await self._decided(TOP)

    async def _shares(self, table: Mapping[int, str]) -> TokenLogprobs | None:
        chat = await self._tried("/tokenize of a chat", by_id.tokenise_chat(self.dialect, _PROMPT))
        shares: dict[int, float] = {}
        for token in table if chat else ():
            share = await self._tried("/generative_scoring", by_id.share(self.dialect, chat.ids, token))  # type: ignore[union-attr]
            if share is None:
                return None
            shares[token] = share
        try:
            return by_id.joined(shares, table, 0, "") if shares else None
        except ValueError:
            self.found["/generative_scoring"] = _WRONG
            return None

    async def targets(self, top: int) -> Way:
        """How the log-probabilities of a prompt are asked for. Raises as `labels`."""
        text = await self._tried("/tokenize", by_id.tokenise(self.dialect, _TEXT))
        if text and await self._targets_by_id(text.ids):
            return await self._decided(TOKEN_IDS)
        if await self._targets_by_echo():
            return await self._decided(ECHO)
        await self._plain(top)
        return await self._decided(OFF)

    async def _targets_by_id(self, ids: tuple[int, ...]) -> bool:
        shown = {"logprobs": 1, "return_tokens_as_token_ids": True}
        chosen = await self._tried("ids as a prompt", self._greedy(list(ids), shown, by_id.read_greedy_id))
        if chosen is None:
            return False
        asked = by_id.target(self.dialect, [*ids, chosen[0]], len(ids))
        answer = await self._tried("prompt_logprobs", asked)
        return answer is not None and self._agrees("prompt_logprobs", abs(answer.logprobs[0] - chosen[1]) <= NATS)

    async def _targets_by_echo(self) -> bool:
        chosen = await self._tried("/completions", self._greedy(_TEXT, {"logprobs": 1}, by_id.read_greedy_text))
        if chosen is None or not chosen[0]:
            return False
        answer = await self._tried("echo", self.dialect.echo(Continuation(_TEXT, chosen[0])))
        return answer is not None and self._agrees("echo", abs(math.fsum(answer.logprobs) - chosen[1]) <= NATS)

    def _greedy(self, prompt: object, shown: dict[str, Any], read: Callable[[Any], T]) -> Asked[T]:
        return self.dialect.request(
            COMPLETIONS, {"prompt": prompt}, {"max_tokens": 1, "temperature": 0, **shown}, read
        )

    async def _plain(self, top: int) -> TokenLogprobs:
        """The plain answer to `_PROMPT`, as a judge would get it; a text where log-probabilities are refused."""
        try:
            asked = self.dialect.scoring(_PROMPT, top)
            return await self._must(asked, LOGPROBS)
        except ParameterRefused:
            return await self._must(self.dialect.strict(_PROMPT), frozenset())

    async def _must(self, asked: Asked[T], may_refuse: frozenset[str]) -> T:
        return await self.connection.ask(
            asked.path, asked.body, asked.read, advice=self.advice, may_refuse=may_refuse
        )

    async def _tried(self, what: str, asked: Asked[T | None]) -> T | None:
        """The answer to what the endpoint may not know; `found` says what came of it."""
        status, body = await self.connection.look("POST", asked.path, asked.body)
        if status >= 300:
            self.found[what] = f"refused ({status})"
            return None
        try:
            answer = asked.read(body)
        except (ValueError, QrelayError):
            self.found[what] = "wrong (no such answer)"
            return None
        self.found[what] = _IGNORED if answer is None else _GIVEN
        return answer

    def _agrees(self, what: str, holds: bool) -> bool:
        if not holds:
            self.found[what] = _WRONG
        return holds

    async def _decided(self, name: str) -> Way:
        said = [f"{what} {came}" for what, came in self.found.items()]
        if self.found.get("/tokenize") == _GIVEN:
            status, body = await self.connection.look("GET", by_id.VERSION, {})
            version = body.get("version") if status < 300 and isinstance(body, dict) else None
            said += [f"server version {str(version)[:40]}"] if version else []
        return Way(name, ", ".join(said))


def _apart(plain: TokenLogprobs, exact: TokenLogprobs, tokens: int) -> float:
    """By how much of probability two answers differ at most in a text that both know, beyond what a short list may
    hide of `tokens` tokens."""
    one, other = _masses(plain), _masses(exact)
    hidden = tokens * math.exp(plain.tokens[-1][1]) if plain.tokens else 0.0
    return max(abs(one[text] - other[text]) - hidden for text in other)


def _masses(answer: TokenLogprobs) -> Counter[str]:
    """Stripped text -> its tokens' probability."""
    masses: Counter[str] = Counter()
    for text, logprob in answer.tokens:
        masses[text.strip()] += math.exp(logprob)  # type: ignore[assignment]
    return masses
