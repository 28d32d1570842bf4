"""The strategies that ask a chat model for one grade token: a template and a scale make one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import labels, read_grade
from qrelay.llm.base import Backend
from qrelay.llm.exchange import TOKEN_LOGPROBS, Message, Prompt, TokenLogprobs
from qrelay.scales import Scale
from qrelay.types import Graded, Missing, Passage, Query


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked example: a pair that people graded, and the reply that it deserves (a label of the scale)."""

    query: str
    title: str
    text: str
    reply: str


class ChatGrade:
    """Instructions and query first, passage last, one grade token as the reply."""

    def __init__(
        self, name: str, scale: Scale, instructions: str, *, cue: str, min_mass: float, shots: Sequence[Shot] = ()
    ) -> None:
        """`cue` is what follows the passage, with {query} where the query is said again: a small model obeys what it
        read last, so that should be the question and not the passage. `min_mass`: see `read_grade`; `shots` stand
        before the query, so that all passages share them too."""
        self._scale = scale
        self._labels = labels(scale)
        self._instructions = instructions.strip()
        self._cue = cue
        self._min_mass = min_mass
        self._shots = tuple(self._worked(shot) for shot in shots)
        template = self.prompt("{query}", Passage("", "", "{title}", "{text}"))
        spellings = ["/".join(variants) for variants in scale.variants]
        shown = (template.instructions, template.question, template.evidence, *chain.from_iterable(self._shots))
        self.spec = StrategySpec(
            name, scale, digest(hygiene.VERSION, *shown, *spellings), frozenset({TOKEN_LOGPROBS}), TOKEN_LOGPROBS
        )

    def prompt(self, query: str, passage: Passage) -> Prompt:
        """The chat of one pair."""
        return Prompt(
            instructions=self._instructions,
            question=_question(query),
            evidence=self._evidence(query, passage.title, passage.text),
            labels=self._labels,
            query=query,
            passage=passage.text,
            shots=self._shots,
            spellings=self._scale.variants,
        )

    def _evidence(self, query: str, title: str, text: str) -> str:
        cue = self._cue.replace("{query}", hygiene.as_data(query))
        return f"{hygiene.delimited_passage(title, text)}\n\n{cue}"

    def _worked(self, shot: Shot) -> tuple[str, str]:
        if shot.reply not in self._labels:
            raise ConfigError(f"a worked example has the reply {shot.reply!r}: give one of {', '.join(self._labels)}")
        return _question(shot.query) + self._evidence(shot.query, shot.title, shot.text), shot.reply

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """Nothing beside the pair."""
        return ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """One question a passage, adjacent, so that they share the instructions and the query."""
        replies = await backend.score([self.prompt(query.text, passage) for passage in passages])
        return [reply if isinstance(reply, QrelayError) else self._measured(reply) for reply in replies]

    def _measured(self, reply: TokenLogprobs) -> Measured:
        return Measured(self.grade(reply), reply.decoding, reply.text, reply.prompt_tokens)

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The chat."""
        return self.prompt(query.text, passage).messages()

    def grade(self, reply: TokenLogprobs) -> Graded | Missing:
        """See `read_grade`."""
        return read_grade(reply, self._scale, min_mass=self._min_mass)


def _question(query: str) -> str:
    return f"Query: {hygiene.as_data(query)}\n\n"
