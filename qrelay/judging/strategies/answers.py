"""What is read from a rubric's answers: probabilities of the first token, a number, or JSON; and the reason.

A number and JSON are read strictly: what is not a grade is missing, unparseable, and never a guess. With
probabilities the grade is measured first; the reason is asked for after it, so that it cannot change it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from qrelay.errors import ConfigError, QrelayError, TransientError
from qrelay.judging.strategies.base import Measured
from qrelay.judging.strategies.grading import grade_said, labels, read_grade
from qrelay.judging.strategies.rubric import Answer
from qrelay.llm.base import Backend
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS, Chat, Prompt, TokenLogprobs
from qrelay.parsing import json_document
from qrelay.scales import Scale
from qrelay.types import Graded, Missing

_REASON_TOKENS: Final = 120
_NUMBER_TOKENS: Final = 8
_JSON_TOKENS: Final = 256
_FENCE: Final = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL | re.IGNORECASE)


class Read(NamedTuple):
    """What an answer in words says."""

    outcome: Graded | Missing
    reason: str = ""


class Reader(Protocol):
    """One way of answering."""

    @property
    def needs(self) -> frozenset[str]:
        """What it asks of a backend."""

    @property
    def asks(self) -> str:
        """Whose decoding is part of a label's identity."""

    @property
    def hashed(self) -> tuple[str, ...]:
        """How the answer is read, for the prompt's hash."""

    def reply(self, label: str) -> str:
        """The answer of a worked example that deserves this label."""

    def accepts(self, answer: str) -> bool:
        """Whether a worked example may have this answer."""

    async def measure(self, backend: Backend, prompts: Sequence[Prompt]) -> list[Measured | QrelayError]:
        """One outcome a prompt, in order."""


class Probabilities:
    """The distribution of the first token over the grades."""

    def __init__(self, scale: Scale, why: str, min_mass: float, max_tokens: int) -> None:
        """why: the question for a reason, "" for none; min_mass: see `read_grade`."""
        self._scale, self._why, self._min_mass = scale, why, min_mass
        self._max_tokens = max_tokens or _REASON_TOKENS
        self.needs = frozenset({TOKEN_LOGPROBS, GENERATION}) if why else frozenset({TOKEN_LOGPROBS})
        self.asks = TOKEN_LOGPROBS
        self.hashed: tuple[str, ...] = ("reason", why, str(self._max_tokens)) if why else ()

    def reply(self, label: str) -> str:
        """The label."""
        return label

    def accepts(self, answer: str) -> bool:
        """Only a label."""
        return answer in labels(self._scale)

    def grade(self, reply: TokenLogprobs) -> Graded | Missing:
        """See `read_grade`."""
        return read_grade(reply, self._scale, min_mass=self._min_mass)

    async def measure(self, backend: Backend, prompts: Sequence[Prompt]) -> list[Measured | QrelayError]:
        """The grades in one call, then the reasons of those that are grades in another."""
        replies = await backend.score(prompts)
        found = [
            each
            if isinstance(each, QrelayError)
            else Measured(self.grade(each), each.decoding, each.text, each.prompt_tokens)
            for each in replies
        ]
        return await self._with_reasons(backend, prompts, found) if self._why else found

    async def _with_reasons(
        self, backend: Backend, prompts: Sequence[Prompt], found: list[Measured | QrelayError]
    ) -> list[Measured | QrelayError]:
        """A reason that failed for good leaves its label without one; one that may come later has the pair asked
        again, as a label that is cached would never get it."""
        asked = [(n, each) for n, each in enumerate(found) if isinstance(each, Measured) and _graded(each)]
        replies = await backend.generate([self._chat(prompts[n], each) for n, each in asked])
        for (n, each), reply in zip(asked, replies, strict=True):
            if isinstance(reply, TransientError):
                found[n] = reply
            elif not isinstance(reply, QrelayError):
                cost = each.prompt_tokens + reply.prompt_tokens
                found[n] = replace(each, reason=reply.text, prompt_tokens=cost)
        return found

    def _chat(self, prompt: Prompt, measured: Measured) -> Chat:
        assert isinstance(measured.outcome, Graded)
        label = labels(self._scale)[measured.outcome.grade - self._scale.min_grade]
        turns = [(each["role"], each["content"]) for each in prompt.messages()]
        return Chat((*turns, ("assistant", label), ("user", self._why)), self._max_tokens)


@dataclass(frozen=True)
class _Words(ABC):
    """A base for answers in words."""

    scale: Scale
    answer: Answer

    needs = frozenset({GENERATION})
    asks = GENERATION

    @property
    def hashed(self) -> tuple[str, ...]:
        """How the answer is read, and where it is cut."""
        return (self.answer.read, str(bool(self.answer.reason)), str(self._max_tokens))

    @property
    def _max_tokens(self) -> int:
        return self.answer.max_tokens or _NUMBER_TOKENS + (_REASON_TOKENS if self.answer.reason else 0)

    @property
    def _choices(self) -> tuple[str, ...]:
        return () if self.answer.reason else labels(self.scale)

    def accepts(self, answer: str) -> bool:
        """Only what is read as a grade, with a reason where one is asked for."""
        found = self.read(answer)
        return isinstance(found.outcome, Graded) and bool(found.reason) == bool(self.answer.reason)

    @abstractmethod
    def read(self, text: str) -> Read:
        """What the answer says."""

    async def measure(self, backend: Backend, prompts: Sequence[Prompt]) -> list[Measured | QrelayError]:
        """One reply a prompt."""
        turns = [tuple((each["role"], each["content"]) for each in prompt.messages()) for prompt in prompts]
        replies = await backend.generate([Chat(each, self._max_tokens, self._choices) for each in turns])
        found: list[Measured | QrelayError] = []
        for reply in replies:
            if isinstance(reply, QrelayError):
                found.append(reply)
                continue
            outcome, reason = self.read(reply.text)
            said = reply.text.partition("\n")[0] if reason else reply.text
            found.append(Measured(outcome, reply.decoding, said, reply.prompt_tokens, reason))
        return found


class Number(_Words):
    """The grade alone; with a reason the grade on the first line and the reason after it."""

    def reply(self, label: str) -> str:
        """The label."""
        return label

    def read(self, text: str) -> Read:
        """See the class."""
        first, _, rest = text.strip().partition("\n")
        if not self.answer.reason:
            return Read(grade_said(text, self.scale))
        outcome = grade_said(first, self.scale)
        return Read(outcome, rest.strip() if isinstance(outcome, Graded) else "")


class Json(_Words):
    """One JSON object that the schema allows, alone or in a fence of its own."""

    def check(self) -> None:
        """Raises ConfigError: the schema is none."""
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        try:
            Draft202012Validator.check_schema(self._schema)
        except SchemaError as error:
            raise ConfigError(f"answer.schema is no JSON Schema: {error.message[:200]}") from error

    @property
    def _schema(self) -> dict[str, Any]:
        """The rubric's, or an object with the grade, and the reason where one is asked for."""
        own = self.answer
        if own.form is not None:
            return own.form
        fields: dict[str, Any] = {own.grade_field: {"enum": [_value(each) for each in labels(self.scale)]}}
        if own.reason:
            fields[own.reason_field] = {"type": "string"}
        return {"type": "object", "properties": fields, "required": list(fields)}

    @property
    def hashed(self) -> tuple[str, ...]:
        """And the schema and the fields that are read."""
        own = self.answer
        schema = json.dumps(self._schema, sort_keys=True, ensure_ascii=True)
        return (*super().hashed, schema, own.grade_field, own.reason_field if own.reason else "")

    @property
    def _max_tokens(self) -> int:
        return self.answer.max_tokens or _JSON_TOKENS

    @property
    def _choices(self) -> tuple[str, ...]:
        return ()

    def reply(self, label: str) -> str:
        """An object of the grade alone."""
        return json.dumps({self.answer.grade_field: _value(label)})

    def read(self, text: str) -> Read:
        """See the class."""
        text = text.strip()
        fenced = _FENCE.fullmatch(text)
        try:
            found = json_document(fenced[1] if fenced else text, once=True)
        except ValueError as error:
            return Read(_unparseable(text, f"no JSON: {error}"))
        if problem := self._problem(found):
            return Read(_unparseable(text, problem))
        value = found.get(self.answer.grade_field) if isinstance(found, dict) else None
        if not isinstance(value, int | str) or isinstance(value, bool):
            return Read(_unparseable(text, f"without a grade in {self.answer.grade_field!r}"))
        reason = found.get(self.answer.reason_field, "") if self.answer.reason else ""
        outcome = grade_said(str(value), self.scale)
        return Read(outcome, reason if isinstance(reason, str) and isinstance(outcome, Graded) else "")

    def _problem(self, found: Any) -> str:
        """What of the schema the answer breaks; "" for nothing."""
        from jsonschema import Draft202012Validator
        from referencing import Registry
        from referencing.exceptions import Unresolvable

        validator = Draft202012Validator(self._schema, registry=Registry())  # which fetches nothing
        try:
            error = next(iter(validator.iter_errors(found)), None)
        except (Unresolvable, re.error, RecursionError) as problem:
            return f"not to be checked: answer.schema has a part that leads nowhere ({type(problem).__name__})"
        return f"not what answer.schema says: {error.message[:120]}" if error else ""


def reader_of(answer: Answer, scale: Scale, min_mass: float) -> Reader:
    """What reads the rubric's answers. Raises ConfigError: a schema that is none."""
    if answer.by_token:
        return Probabilities(scale, answer.question, min_mass, answer.max_tokens)
    if answer.read == "number":
        return Number(scale, answer)
    found = Json(scale, answer)
    found.check()
    return found


def _graded(measured: Measured) -> bool:
    return isinstance(measured.outcome, Graded)


def _value(label: str) -> int | str:
    return int(label) if label.isdecimal() else label


def _unparseable(text: str, why: str) -> Missing:
    return Missing("unparseable", f"the reply ({len(text)} characters) is {why}"[:300])
