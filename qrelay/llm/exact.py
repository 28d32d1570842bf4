"""Questions by token id, from the server's own tokenizer to the answer: see `by_id` for each request.

Context and target are tokenised apart and joined, as the engines of this process do it, so that a target has the same
tokens after every context.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import chain
from typing import Final, TypeVar

from qrelay.errors import BackendUnavailable, EndpointRefuses, MalformedInput, Oversized
from qrelay.llm import by_id
from qrelay.llm.dialect import Dialect
from qrelay.llm.exchange import Continuation, Prompt, TargetLogprobs, TokenLogprobs
from qrelay.llm.first_tokens import Sender

T = TypeVar("T")

_KEPT: Final = 1024
"""Texts whose tokens are remembered: a query is the target of many passages."""
_SAMPLE: Final = "be kind"
_LINE: Final = "\n"
"""What stands before a target without a context, where the model wants nothing before a text."""


class Exact:
    """See the module. Use from one event loop at a time."""

    def __init__(self, dialect: Dialect, ask: Sender, retry_refused_s: float) -> None:
        """retry_refused_s: seconds after which an endpoint that no longer answers so is asked again."""
        self._dialect, self._ask, self._retry_s = dialect, ask, retry_refused_s
        self._tables: dict[tuple[tuple[str, ...], ...], by_id.Table] = {}
        self._tokenised: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._start: tuple[int, ...] | None = None

    async def labels(self, prompt: Prompt) -> TokenLogprobs:
        """By `logprob_token_ids`.

        Raises:
            EndpointRefuses: the endpoint answers as if it had not been asked so, or no label is one of its tokens.
            QrelayError: as `ask`.
        """
        table = await self._table(prompt)
        return self._had(await self._ask(by_id.labels(self._dialect, prompt, table)), "label_logprobs")

    async def shares(self, prompt: Prompt) -> TokenLogprobs:
        """By `/generative_scoring`, a request a token. Raises as `labels`, and Oversized: the server would cut it."""
        table = await self._table(prompt)
        chat = self._had(await self._ask(by_id.tokenise_chat(self._dialect, prompt)), "label_logprobs")
        if len(chat.ids) >= chat.longest:
            raise Oversized(
                f"the prompt has {len(chat.ids)} tokens and does not fit the context of {chat.longest}: shorten the "
                "passages or use a model with a longer context"
            )
        asked = [self._ask(by_id.share(self._dialect, chat.ids, token)) for token in table]
        shares = [self._had(each, "label_logprobs") for each in await asyncio.gather(*asked)]
        try:
            decoding = self._dialect.by_label_shares
            return by_id.joined(dict(zip(table, shares, strict=True)), table, len(chat.ids), decoding)
        except ValueError as error:
            raise BackendUnavailable(f"the endpoint's probabilities are none: {error}") from error

    async def target(self, each: Continuation) -> TargetLogprobs:
        """By `prompt_logprobs` of ids. Raises as `labels`, and MalformedInput: the target has no tokens."""
        head, tail = await asyncio.gather(self._tokens(each.context), self._tokens(each.target))
        if not tail:
            raise MalformedInput("the target has no tokens: give one that is not empty")
        head = (*await self._begin(), *head) or await self._tokens(_LINE)
        asked = by_id.target(self._dialect, (*head, *tail), len(head))
        return self._had(await self._ask(asked), "prompt_logprobs")

    async def _begin(self) -> tuple[int, ...]:
        """What the model wants before every text."""
        if self._start is None:
            bare = await self._tokens(_SAMPLE)
            whole = self._had(
                await self._ask(by_id.tokenise(self._dialect, _SAMPLE, special=True)), "prompt_logprobs"
            )
            self._start = whole.ids[: whole.ids.index(bare[0])] if bare and bare[0] in whole.ids else ()
        return self._start

    async def _tokens(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        if text not in self._tokenised:
            found = self._had(await self._ask(by_id.tokenise(self._dialect, text)), "prompt_logprobs")
            self._tokenised[text] = found.ids
            while len(self._tokenised) > _KEPT:
                self._tokenised.popitem(last=False)
            return found.ids
        self._tokenised.move_to_end(text)
        return self._tokenised[text]

    async def _table(self, prompt: Prompt) -> by_id.Table:
        """The tokens of the labels, each of which has one at least."""
        spellings = prompt.spellings or tuple((label,) for label in prompt.labels)
        if spellings not in self._tables:
            every = list(chain.from_iterable(spellings))
            found = self._had(await self._ask(by_id.tokenise(self._dialect, by_id.listed(every))), "label_logprobs")
            lacking = [texts[0] for texts in spellings if not by_id.table_of(found, texts)]
            if lacking:
                raise self._refusal(f"the label {lacking[0][:40]!r} is no single token of it", "label_logprobs")
            self._tables[spellings] = by_id.table_of(found, every)
        return self._tables[spellings]

    def _had(self, answer: T | None, setting: str) -> T:
        if answer is None:
            raise self._refusal("it answers as if it had not been asked by token ids", setting)
        return answer

    def _refusal(self, why: str, setting: str) -> EndpointRefuses:
        return EndpointRefuses(
            f"the endpoint does not give log-probabilities of given tokens, {why}: serve what was served before, or "
            f"set judge.endpoint.{setting} to another way than token_ids and generative_scoring (another identity)",
            retry_after_s=self._retry_s,
        )
