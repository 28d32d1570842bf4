"""The strategies that ask a chat model for one grade token: a template and a scale make one."""

from __future__ import annotations

from qrelay.identity import digest
from qrelay.types import Graded, Missing, Passage
from services.judge.exchange import TOKEN_LOGPROBS, Prompt, TokenLogprobs
from services.judge.strategies import hygiene
from services.judge.strategies.base import Scale, StrategySpec
from services.judge.strategies.grading import labels, read_grade


class ChatGrade:
    """Instructions and query first, passage last, one grade token as the reply."""

    def __init__(self, name: str, scale: Scale, instructions: str, *, cue: str, min_mass: float) -> None:
        """`cue` is the line after the passage; `min_mass`: see `read_grade`."""
        self._scale = scale
        self._labels = labels(scale)
        self._instructions = instructions.strip()
        self._cue = cue
        self._min_mass = min_mass
        template = self.prompt("{query}", Passage("", "", "{title}", "{text}"))
        spellings = ["/".join(variants) for variants in scale.variants]
        shown = (template.instructions, template.question, template.evidence)
        self._spec = StrategySpec(
            name, scale, digest(hygiene.VERSION, *shown, *spellings), frozenset({TOKEN_LOGPROBS})
        )

    @property
    def spec(self) -> StrategySpec:
        """Name, scale, prompt hash."""
        return self._spec

    def prompt(self, query: str, passage: Passage) -> Prompt:
        """The chat of one pair."""
        return Prompt(
            instructions=self._instructions,
            question=f"Query: {hygiene.as_data(query)}\n\n",
            evidence=f"{hygiene.delimited_passage(passage.title, passage.text)}\n\n{self._cue}",
            labels=self._labels,
            query=query,
            passage=passage.text,
        )

    def grade(self, reply: TokenLogprobs) -> Graded | Missing:
        """See `read_grade`."""
        return read_grade(reply, self._scale, min_mass=self._min_mass)
