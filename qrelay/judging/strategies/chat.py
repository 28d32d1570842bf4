"""The strategy that a rubric makes: a chat whose answer is one grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.answers import Probabilities, reader_of
from qrelay.judging.strategies.base import Measured, StrategySpec, lacking
from qrelay.judging.strategies.grading import labels
from qrelay.judging.strategies.rubric import EXAMPLES, Rubric
from qrelay.judging.strategies.template import Template, field_of
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
    metadata: Mapping[str, str] = field(default_factory=dict)


class ChatGrade:
    """Instructions and query first, passage last, one grade as the reply."""

    def __init__(self, rubric: Rubric, *, min_mass: float, shots: Sequence[Shot] = ()) -> None:
        """`min_mass`: see `read_grade`; `shots` stand before the query, so that all passages share them too: where
        the template says, else as turns of the chat."""
        self._scale = rubric.grades
        self._labels = labels(self._scale)
        self._reader = reader_of(rubric.answer, self._scale, min_mass)
        self._instructions = rubric.system.filled({})
        self._metadata = dict(sorted(rubric.metadata.items()))
        self._fields = [(name, *found) for name in rubric.user.names if (found := field_of(name))]
        own = [
            Shot(each.query, each.title, each.text, each.answer.strip(), each.metadata) for each in rubric.examples
        ]
        given = [replace(each, reply=self._deserved(each)) for each in shots]
        form = rubric.user.after(EXAMPLES)
        worked = tuple((self._worked(form, shot), shot.reply) for shot in (*own, *given))
        inline = EXAMPLES in rubric.user.names
        self._shots = () if inline else worked
        told = "\n\n".join(f"{shown.strip()}\n{reply}" for shown, reply in worked)
        self._before, self._after = rubric.user.given({EXAMPLES: told}).split()
        shown = (rubric.system.source({}), *self._sources(), *chain.from_iterable(self._shots))
        spellings = ("/".join(variants) for variants in self._scale.variants)
        prompt_hash = digest(hygiene.VERSION, *shown, *spellings, *self._reader.hashed)
        needs, asks = self._reader.needs, self._reader.asks
        self.spec = StrategySpec(rubric.strategy, self._scale, prompt_hash, needs, asks, metadata=self._metadata)

    def _sources(self) -> tuple[str, str]:
        """The template before and from the passage on, for the hash."""
        passage = {"passage": hygiene.delimited_passage("{title}", "{text}")}
        return self._before.source({}), self._after.source(passage)

    def prompt(self, query: str, passage: Passage) -> Prompt:
        """The chat of one pair."""
        values = self._values(query, passage.title, passage.text, passage.metadata)
        return Prompt(
            instructions=self._instructions,
            question=self._before.filled(values),
            evidence=self._after.filled(values),
            labels=self._labels,
            query=query,
            passage=passage.text,
            shots=self._shots,
            spellings=self._scale.variants,
        )

    def _values(self, query: str, title: str, text: str, metadata: Mapping[str, str]) -> dict[str, str]:
        """What the placeholders stand for, harmless."""
        return {
            "query": hygiene.as_data(query),
            "passage": hygiene.delimited_passage(title, text),
            "title": hygiene.as_data(title),
            "text": hygiene.as_data(text),
            **{name: hygiene.line(metadata.get(field, "")) or instead for name, field, instead in self._fields},
        }

    def _deserved(self, shot: Shot) -> str:
        if shot.reply not in self._labels:
            raise ConfigError(f"a worked example has the reply {shot.reply!r}: give one of {', '.join(self._labels)}")
        return self._reader.reply(shot.reply)

    def _worked(self, form: Template, shot: Shot) -> str:
        """The example in this form. Raises ConfigError: it is none."""
        if not self._reader.accepts(shot.reply):
            raise ConfigError(
                f"a worked example has the answer {shot.reply[:80]!r}, which the rubric would not read: give the "
                "answer word for word as the model should give it, in the rubric's `examples` where it has a reason"
            )
        if absent := lacking(self._metadata, shot.metadata):
            raise ConfigError(
                f"a worked example lacks the metadata {absent[0]}, which the template shows: give it `metadata`, or "
                f"say what stands in its place: {{metadata.{absent[0]}:unknown}}"
            )
        return form.filled(self._values(shot.query, shot.title, shot.text, shot.metadata))

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
