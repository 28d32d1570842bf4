"""The strategy that a rubric makes: a chat whose answer is one grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.answers import Probabilities, reader_of
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import labels
from qrelay.judging.strategies.rubric import Rubric
from qrelay.llm.base import Backend
from qrelay.llm.exchange import Message, Prompt, TokenLogprobs
from qrelay.types import Graded, Missing, Passage, Query


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked example: a pair that people graded, and the reply that it deserves (a label of the scale)."""

    query: str
    title: str
    text: str
    reply: str


class ChatGrade:
    """Instructions and query first, passage last, one grade as the reply."""

    def __init__(self, rubric: Rubric, *, min_mass: float, shots: Sequence[Shot] = ()) -> None:
        """`min_mass`: see `read_grade`; `shots` stand before the query, so that all passages share them too."""
        self._scale = rubric.grades
        self._labels = labels(self._scale)
        self._reader = reader_of(rubric.answer, self._scale, min_mass)
        self._instructions = rubric.system.filled({})
        self._before, self._after = rubric.user.split()
        own = [Shot(each.query, each.title, each.text, each.answer.strip()) for each in rubric.examples]
        given = [Shot(each.query, each.title, each.text, self._deserved(each)) for each in shots]
        self._shots = tuple(self._worked(shot) for shot in (*own, *given))
        shown = (rubric.system.source({}), *self._sources(), *chain.from_iterable(self._shots))
        spellings = ("/".join(variants) for variants in self._scale.variants)
        prompt_hash = digest(hygiene.VERSION, *shown, *spellings, *self._reader.hashed)
        self.spec = StrategySpec(rubric.strategy, self._scale, prompt_hash, self._reader.needs, self._reader.asks)

    def _sources(self) -> tuple[str, str]:
        """The template before and from the passage on, for the hash."""
        passage = {"passage": hygiene.delimited_passage("{title}", "{text}")}
        return self._before.source({}), self._after.source(passage)

    def prompt(self, query: str, passage: Passage) -> Prompt:
        """The chat of one pair."""
        question, evidence = self._filled(query, passage.title, passage.text)
        return Prompt(
            instructions=self._instructions,
            question=question,
            evidence=evidence,
            labels=self._labels,
            query=query,
            passage=passage.text,
            shots=self._shots,
            spellings=self._scale.variants,
        )

    def _filled(self, query: str, title: str, text: str) -> tuple[str, str]:
        """The user's message: what stands before the passage, and the rest."""
        values = {
            "query": hygiene.as_data(query),
            "passage": hygiene.delimited_passage(title, text),
            "title": hygiene.as_data(title),
            "text": hygiene.as_data(text),
        }
        return self._before.filled(values), self._after.filled(values)

    def _deserved(self, shot: Shot) -> str:
        if shot.reply not in self._labels:
            raise ConfigError(f"a worked example has the reply {shot.reply!r}: give one of {', '.join(self._labels)}")
        return self._reader.reply(shot.reply)

    def _worked(self, shot: Shot) -> tuple[str, str]:
        if not self._reader.accepts(shot.reply):
            raise ConfigError(
                f"a worked example has the answer {shot.reply[:80]!r}, which the rubric would not read: give the "
                "answer word for word as the model should give it, in the rubric's `examples` where it has a reason"
            )
        return "".join(self._filled(shot.query, shot.title, shot.text)), shot.reply

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """Nothing beside the pair."""
        return ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """One question a passage, adjacent, so that they share the instructions and the query."""
        return await self._reader.measure(backend, [self.prompt(query.text, passage) for passage in passages])

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The chat."""
        return self.prompt(query.text, passage).messages()

    def grade(self, reply: TokenLogprobs) -> Graded | Missing:
        """The grade in a distribution, of a rubric that reads one."""
        assert isinstance(self._reader, Probabilities)
        return self._reader.grade(reply)
