"""Nuggets from the relevant passages of a query: window by window, each asked for what the list so far lacks.

A reply is a JSON list of strings and nothing else (a code fence around it is taken off); a window with any other
reply is lost and counted, not guessed at. At most KEPT nuggets are kept; the same words twice count once, and what
has more than WORDS words is no nugget. Then each is asked about by itself: vital or okay. The probability of "yes"
decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from qrelay.judging.asking import Asker
from qrelay.judging.nuggets.records import OKAY, VITAL, Nugget, NuggetList
from qrelay.judging.prompts import shipped
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.grading import read_grade
from qrelay.judging.strategies.numbered import Text, size, windows
from qrelay.parsing import json_document
from qrelay.scales import Scale
from qrelay.types import Missing
from qrelay.words import normalised

KEPT: Final = 30
"""Nuggets of a query that are kept; 20 of them are used (`assign.MOST`)."""
ROOM: Final = 10
"""Nuggets asked for at once."""
WORDS: Final = 30
_TOKENS: Final = 40 * ROOM
_TITLE_WORDS: Final = 24
_WINDOW_WORDS: Final = 1200
IMPORTANCE: Final = Scale.halved("0-1", variants=(("no",), ("yes",)))
_FENCED: Final = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


async def create(
    asker: Asker, query_id: str, query: str, passages: Iterable[Text], *, words: int = 160, min_mass: float = 0.05
) -> NuggetList:
    """The nuggets of a query. passages: (title, text) of its relevant ones, of whose texts `words` words are shown.

    Raises:
        TransientError: see `Asker`.
    """
    shown = [_cut(passage, words) for passage in passages]
    empty = NuggetList(query_id, query, (), asker.identity(shipped("nuggets").hash))
    if not shown:
        return replace(empty, missing=Missing("skipped", "the query has no relevant passage"))
    texts: list[str] = []
    lost: list[Missing] = []
    for start, stop in (parts := windows([sum(map(size, each)) for each in shown], _WINDOW_WORDS, 0)):
        found = await _window(asker, query, shown[start:stop], texts)
        if isinstance(found, Missing):
            lost.append(found)
        else:
            texts = _joined(texts, found)
    failed = next(
        (each for each in lost if each.reason != "unparseable"), lost[0] if len(lost) == len(parts) else None
    )
    if failed:
        return replace(empty, missing=failed, unread=len(lost))
    if not texts:
        return replace(
            empty, missing=Missing("skipped", "the passages answer nothing of the query, as the model says")
        )
    judged = await _judged(asker, query, texts, min_mass)
    order = sorted(judged, key=lambda each: (VITAL, OKAY, "").index(each.importance))
    return replace(empty, nuggets=tuple(order), unread=len(lost))


async def _window(asker: Asker, query: str, passages: Sequence[Text], known: Sequence[str]) -> list[str] | Missing:
    """What this window adds."""
    room = min(ROOM, KEPT - len(known))
    if not room:
        return []
    chat = shipped("nuggets").chat(
        "extend" if known else "create",
        _TOKENS,
        query=hygiene.as_data(query),
        passages="\n".join(f"[{n}]\n{hygiene.delimited_passage(*each)}" for n, each in enumerate(passages, 1)),
        nuggets=json.dumps(list(known), ensure_ascii=False),
        room=str(room),
    )
    (reply,) = await asker.generate([chat])
    if isinstance(reply, Missing):
        return reply
    found = read_list(reply.text) if reply.completion_tokens < _TOKENS else None
    if found is None:
        return Missing("unparseable", f"no JSON list of strings: {reply.text[:80]!r}")
    usable = _joined((), found)
    return usable[:room] if usable or not found else Missing("unparseable", f"none has at most {WORDS} words")


def read_list(reply: str) -> list[str] | None:
    """The strings of a reply that is a JSON list of them; None where it is anything else."""
    fenced = _FENCED.fullmatch(reply.strip())
    try:
        said = json_document(fenced[1] if fenced else reply)
    except ValueError:
        return None
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        return None
    return said


def _joined(known: Sequence[str], found: Iterable[str]) -> list[str]:
    """Both, each once, without what is empty or too long, as single lines that hold no control sequences."""
    held: dict[str, str] = {}
    for each in chain(known, found):
        text = " ".join(hygiene.as_data(each).split())
        if 0 < size(text) <= WORDS:
            held.setdefault(normalised(text), text)
    return list(held.values())[:KEPT]


async def _judged(asker: Asker, query: str, texts: Sequence[str], min_mass: float) -> list[Nugget]:
    shared = {"query": hygiene.as_data(query)}
    own = shipped("nuggets")
    prompts = [own.prompt("importance", IMPORTANCE, (query, text), shared, {"nugget": text}) for text in texts]
    found = []
    for text, reply in zip(texts, await asker.score(prompts), strict=True):
        grade = reply if isinstance(reply, Missing) else read_grade(reply, IMPORTANCE, min_mass=min_mass)
        if isinstance(grade, Missing):
            found.append(Nugget(text, missing=grade))
        else:
            found.append(Nugget(text, VITAL if grade.grade else OKAY, grade.p_relevant))
    return found


def _cut(passage: Text, words: int) -> Text:
    return hygiene.first_words(passage[0], _TITLE_WORDS), hygiene.first_words(passage[1], words)
