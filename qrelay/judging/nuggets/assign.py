"""Whether a text supports each nugget of its query: one question a nugget, all of which begin with the text."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from qrelay.judging.asking import Asker
from qrelay.judging.nuggets.records import ASSIGNMENTS, Assigned, Assignment, Nugget, NuggetList, Text
from qrelay.judging.prompts import shipped
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.grading import read_grade
from qrelay.llm.exchange import TokenLogprobs
from qrelay.scales import Scale
from qrelay.types import Missing

MOST: Final = 20
"""Nuggets of a list that are used: its first."""
SUPPORT: Final = Scale.halved("0-2", variants=(("0",), ("1",), ("2",)))


async def assign(
    asker: Asker,
    text: Text,
    nuggets: NuggetList | None,
    *,
    words: int = 400,
    most: int = MOST,
    min_mass: float = 0.05,
) -> Assignment:
    """What the first `words` words of the text say of the list's first `most` nuggets. nuggets: None where the query
    has no list. Raises TransientError, see `Asker`."""
    found = Assignment(text.query_id, text.run_id, text.text_id, (), asker.identity(shipped("nuggets").hash))
    if nuggets is None:
        return replace(found, missing=Missing("skipped", "no nugget list of this query"))
    if not nuggets.nuggets:
        return replace(found, missing=nuggets.missing or Missing("skipped", "the nugget list is empty"))
    shown = hygiene.delimited_passage(text.title, hygiene.first_words(text.text, words))
    shared = {"query": hygiene.as_data(nuggets.query), "text": shown}
    asked = nuggets.nuggets[:most]
    own = shipped("nuggets")
    prompts = [
        own.prompt("assign", SUPPORT, (each.text, text.text), shared, {"nugget": hygiene.as_data(each.text)})
        for each in asked
    ]
    replies = await asker.score(prompts)
    told = tuple(_assigned(each, reply, min_mass) for each, reply in zip(asked, replies, strict=True))
    return replace(found, nuggets=told, nuggets_id=nuggets.id)


def _assigned(nugget: Nugget, reply: TokenLogprobs | Missing, min_mass: float) -> Assigned:
    found = reply if isinstance(reply, Missing) else read_grade(reply, SUPPORT, min_mass=min_mass)
    if isinstance(found, Missing):
        return Assigned(nugget, missing=found)
    return Assigned(nugget, ASSIGNMENTS[found.grade], found.probabilities)
