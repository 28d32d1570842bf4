"""`utility`: which passages of a list serve to answer the query, judged side by side.

The shape of Zhang et al., "Are Large Language Models Good at Utility Judgments?" (SIGIR 2024): select what is
relevant, write an answer from that, and select, or rank, the passages that were of use for the answer. Usefulness
shows beside the other passages, so the strategy is listwise: its labels belong to this very list.

A model prefers some places of a list to others, so the list is judged in several passes, each over another shuffle
(seeded by the query's text and the number of the pass, of the list sorted by its texts: the order in which the
passages come does not matter). P(relevant) is the smoothed share of the passes that selected the passage,
(k + 0.5) / (passes + 1); the rank goes by the mean reciprocal position among the selected.

A reply is a list of numbers or "none", and nothing else. A pass with any other reply is lost, not guessed at; where
all are lost the list is missing: unparseable. A backend's error fails the list, so that it is asked again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, NamedTuple

from qrelay.errors import QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import graded
from qrelay.judging.strategies.numbered import NUMBERS, Text, canonical, read_numbers, shuffled, size, windows
from qrelay.judging.strategies.rubric import Prompts, prompts_of
from qrelay.llm.base import Backend
from qrelay.llm.exchange import GENERATION, Chat, Message, Reply
from qrelay.scales import Scale
from qrelay.types import Graded, Missing, Passage, Query, Utility

SCALE: Final = Scale.halved("0-1", variants=(("no",), ("yes",)))
Mode = Literal["selection", "ranking"]

_TASKS: Final = ("relevance", "answer", "selection", "ranking")
_TEXTS: Final = ("system", *_TASKS, *(f"{task}_cue" for task in _TASKS))
_ANSWER_TOKENS: Final = 96
_TOKENS_A_NUMBER: Final = 6
_OVERLAP: Final = 2
"""Passages that a window shares with the next."""
_TOP_SHARE: Final = 0.1
"""Ranking: this share of the list counts as selected, at least one passage (as in the paper)."""


class Limits(NamedTuple):
    """How much is shown: words of one passage, of all passages of one window, and of one title."""

    passage_words: int = 120
    window_words: int = 1200
    title_words: int = 24


@dataclass(slots=True)
class _Pass:
    """One pass over one shuffle: what it selected, best first; None once a reply could not be read."""

    selected: list[Text] | None = None
    prompt_tokens: int = 0
    decoding: str = ""
    raw_reply: str = ""


class ListUtility:
    """See the module."""

    def __init__(
        self,
        mode: Mode = "selection",
        *,
        passes: int = 3,
        limits: Limits = Limits(),  # noqa: B008
        rubric: Prompts | None = None,
    ) -> None:
        """mode: whether the last question asks for a choice or for an order. passes: shuffles, at least 1. rubric:
        the texts of its questions; None: those that come with qrelay.

        Raises:
            ConfigError: a rubric of another kind, or without its texts.
        """
        self._mode = mode
        self._passes = passes
        self._limits = limits
        found = rubric or prompts_of("utility", "utility")
        self._texts = found.texts("utility", _TEXTS)
        system, *others = self._texts.values()
        shown = (f"\n{system}\n", *others, NUMBERS.pattern)
        numbers = (passes, *limits, _ANSWER_TOKENS, _TOKENS_A_NUMBER, _OVERLAP, _TOP_SHARE)
        self.spec = StrategySpec(
            found.strategy,
            SCALE,
            digest(hygiene.VERSION, "utility", mode, *shown, repr(numbers)),
            frozenset({GENERATION}),
            GENERATION,
            listwise=True,
        )

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """All passages of the list, whatever their order."""
        return digest(*chain.from_iterable(canonical(passages)))

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """All passes side by side. Raises the first error of a backend."""
        if not passages:
            return []
        texts = canonical(passages)
        runs = [self._pass(backend, query.text, shuffled(texts, query.text, n)) for n in range(self._passes)]
        done = await asyncio.gather(*runs, return_exceptions=True)
        counted = []
        for each in done:
            if isinstance(each, BaseException):
                raise each
            counted.append(each)
        return self._measured(counted, texts, passages)

    async def _pass(self, backend: Backend, query: str, texts: Sequence[Text]) -> _Pass:
        run = _Pass()
        relevant = await self._choose(backend, run, query, "relevance", texts)
        if not relevant:
            run.selected = relevant
            return run
        sources = relevant[: len(self._windows(relevant)[0])]
        (answer,) = await _ask(backend, run, [self._chat(query, "answer", sources, _ANSWER_TOKENS)])
        useful = await self._narrow(backend, run, query, relevant, hygiene.first_words(answer.text, _ANSWER_TOKENS))
        if useful is not None and self._mode == "ranking":
            useful = useful[: max(1, round(_TOP_SHARE * len(texts)))]
        run.selected = useful
        return run

    async def _narrow(
        self, backend: Backend, run: _Pass, query: str, texts: list[Text], answer: str
    ) -> list[Text] | None:
        """What is useful among `texts`: window by window, until the winners fit into one or stay as many."""
        while True:
            count = len(self._windows(texts))
            winners = await self._choose(backend, run, query, self._mode, texts, answer)
            if not winners or count == 1 or len(winners) >= len(texts):
                return winners
            texts = winners

    async def _choose(
        self, backend: Backend, run: _Pass, query: str, task: str, texts: Sequence[Text], answer: str = ""
    ) -> list[Text] | None:
        """The winners of all windows, each once, as the replies name them; None where a reply cannot be read. Of an
        order, the better half of each of several windows wins."""
        parts = self._windows(texts)
        chats = [self._chat(query, task, part, _TOKENS_A_NUMBER * (len(part) + 2), answer) for part in parts]
        winners: dict[Text, None] = {}
        for part, chat, reply in zip(parts, chats, await _ask(backend, run, chats), strict=True):
            numbers = read_numbers(reply.text, len(part)) if reply.completion_tokens < chat.max_tokens else None
            if numbers is None or (task == "ranking" and not numbers):
                return None
            kept = numbers[: (len(numbers) + 1) // 2] if task == "ranking" and len(parts) > 1 else numbers
            winners |= dict.fromkeys(part[number - 1] for number in kept)
        return list(winners)

    def _chat(self, query: str, task: str, texts: Sequence[Text], max_tokens: int, answer: str = "") -> Chat:
        shown = [f"[{n}]\n" + hygiene.delimited_passage(*self._cut(text)) for n, text in enumerate(texts, 1)]
        asked = [f"Query: {hygiene.as_data(query)}", "", *shown, "", f"Query: {hygiene.as_data(query)}"]
        asked += [f"Draft answer: {hygiene.as_data(answer)}"] if answer else []
        system = self._texts["system"].replace("{task}", self._texts[task])
        return Chat((("system", system), ("user", "\n".join([*asked, self._texts[f"{task}_cue"]]))), max_tokens)

    def _cut(self, text: Text) -> Text:
        limits = self._limits
        return hygiene.first_words(text[0], limits.title_words), hygiene.first_words(text[1], limits.passage_words)

    def _windows(self, texts: Sequence[Text]) -> list[list[Text]]:
        sizes = [sum(map(size, self._cut(text))) for text in texts]
        return [list(texts[start:stop]) for start, stop in windows(sizes, self._limits.window_words, _OVERLAP)]

    def _measured(
        self, passes: Sequence[_Pass], texts: Sequence[Text], passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        kept = [each.selected for each in passes if each.selected is not None]
        decoding, said = passes[0].decoding, " | ".join(each.raw_reply for each in passes)
        cost = sum(each.prompt_tokens for each in passes)
        outcomes = _outcomes(kept, texts) if kept else dict.fromkeys(texts, _lost(len(passes)))
        return [
            Measured(outcomes[p.title, p.text], decoding, said, cost if n == 0 else 0) for n, p in enumerate(passages)
        ]

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The first question, on a list of this passage alone."""
        return self._chat(query.text, "relevance", [(passage.title, passage.text)], _TOKENS_A_NUMBER).as_messages()


async def _ask(backend: Backend, run: _Pass, chats: Sequence[Chat]) -> list[Reply]:
    """The replies, their cost noted in `run`. Raises the first error."""
    replies = []
    for reply in await backend.generate(chats):
        if isinstance(reply, QrelayError):
            raise reply
        run.prompt_tokens += reply.prompt_tokens
        run.decoding, run.raw_reply = reply.decoding, reply.text
        replies.append(reply)
    return replies


def _outcomes(passes: Sequence[Sequence[Text]], texts: Sequence[Text]) -> dict[Text, Graded | Missing]:
    """The label of each text from what the readable passes selected, best first. Texts that no pass selected have no
    rank; equal ones share theirs."""
    chosen = Counter(chain.from_iterable(passes))
    places = {text: sum(1 / (run.index(text) + 1) for run in passes if text in run) / len(passes) for text in chosen}
    outcomes: dict[Text, Graded | Missing] = {}
    for text in texts:
        p = (chosen[text] + 0.5) / (len(passes) + 1)
        rank = 1 + sum(other > places[text] for other in places.values()) if text in places else 0
        outcomes[text] = graded((1.0 - p, p), SCALE, Utility(selected=p > 0.5, rank=rank))
    return outcomes


def _lost(passes: int) -> Missing:
    return Missing("unparseable", f"no reply of {passes} passes was a list of the shown numbers, or none")
