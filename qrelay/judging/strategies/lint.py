"""What of a rubric is allowed but unwise: where a passage could be obeyed, and where the model has to guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from qrelay.judging.strategies.grading import labels
from qrelay.judging.strategies.rubric import EXAMPLES, Rubric
from qrelay.judging.strategies.template import of_passage

_WORDS_AFTER = 3
"""Fewer after the passage say no question."""


def warnings(rubric: Rubric) -> list[str]:
    """Sentences that say what to change; none for a rubric that is well made."""
    return [*_of_hygiene(rubric), *_of_scale(rubric), *_of_answer(rubric), *_of_examples(rubric)]


def _of_hygiene(rubric: Rubric) -> Iterator[str]:
    after, outside = _after(rubric), _outside(rubric)
    if {"title", "text"} & set(outside):
        yield "template: the passage has no delimiter that it cannot write itself: use {passage} instead of {text}"
    elif outside:
        yield (
            f"template: {{{outside[0]}}} has no delimiter that it cannot write itself: write <passage>, all that is "
            "shown of the passage ({title}, {text}), and </passage>, instead of {passage}"
        )
    if len(re.findall(r"\w+", "".join(literal for literal, _ in after))) < _WORDS_AFTER:
        yield (
            "template: nothing after the passage says the question again: a small model obeys what it read last, so "
            "say there what to judge and how to answer"
        )
    if "query" not in [name for _, name in after]:
        yield "template: the query does not follow the passage: put {query} after it too"


def _after(rubric: Rubric) -> list[tuple[str, str]]:
    """The parts behind the last placeholder of the passage."""
    parts = rubric.user.parts
    last = max(n for n, (_, name) in enumerate(parts) if of_passage(name))
    return list(parts[last + 1 :])


def _outside(rubric: Rubric) -> list[str]:
    """What of the passage stands outside <passage> and </passage>: the one tag that hygiene takes from passages."""
    marks = {name: f"\0{n}\0" for n, name in enumerate(rubric.user.names)}
    inside = "".join(re.findall(r"<passage>([^<]*)</passage>", rubric.user.filled(marks)))
    return [name for name in marks if of_passage(name) and name != "passage" and marks[name] not in inside]


def _of_scale(rubric: Rubric) -> Iterator[str]:
    unsaid = [str(grade) for grade, each in sorted(rubric.scale.grades.items()) if not each.meaning.strip()]
    if unsaid:
        yield f"scale: the grades {', '.join(unsaid)} have no meaning: say when a passage deserves them"
    if lacking := _unread(rubric, labels(rubric.grades)):
        yield f"instructions: the model never reads what {', '.join(lacking)} means: put {{grades}} where it should"


def _of_answer(rubric: Rubric) -> Iterator[str]:
    own = rubric.answer
    fields = (own.grade_field, *([own.reason_field] if own.reason else [])) if own.read == "json" else ()
    if lacking := _unread(rubric, fields):
        yield f"instructions: the answer is JSON, and the model is not told of {', '.join(lacking)}: show the object"
    ending = "".join(literal for literal, _ in _after(rubric))
    if not fields and not _says(rubric.system.filled({}).rpartition("\n")[2] + ending, labels(rubric.grades)):
        yield (
            "template: how to answer is not said last: end the instructions, or the template after the passage, with "
            "the answers that count, as {answers}"
        )
    words = [each for each in labels(rubric.grades) if not each.isdecimal() and each not in ("YES", "NO")]
    if own.by_token and words:
        yield f"scale: {', '.join(words)} may be several tokens, and only the first is read: use digits or a number"


def _of_examples(rubric: Rubric) -> Iterator[str]:
    if EXAMPLES in rubric.user.names and not rubric.examples:
        yield "template: {examples} is empty, as the rubric has none: give some, or set judge.shots"
    if len({bool(each.title.strip()) for each in rubric.examples}) > 1:
        yield "examples: some have a title and some have none: give all of them one form"
    if any(one.answer.strip() == other.answer.strip() for one, other in pairwise(rubric.examples)):
        yield "examples: neighbours have the same answer, which a model repeats: let the grades take turns"


def _unread(rubric: Rubric, words: tuple[str, ...]) -> list[str]:
    """Those of the words that stand nowhere in what the model reads."""
    return [each for each in words if not _says(rubric.system.filled({}) + "\n" + rubric.user.filled({}), (each,))]


def _says(text: str, words: tuple[str, ...]) -> bool:
    """Whether all of them stand in the text, as words."""
    return all(re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text, re.IGNORECASE) for each in words)
