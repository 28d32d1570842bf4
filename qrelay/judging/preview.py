"""A preview: a small sample judged before the whole feed is, and what the feed would then cost.

Everything is measured anew, without the cache, so that tokens and speed are those of the work itself. Pairs of one
query are judged together, as in a feed: most engines read their shared prefix once.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from qrelay.errors import InputError, QrelayError
from qrelay.formats.lines import BadRecord
from qrelay.formats.records import metadata_in, read_records, require_text
from qrelay.identity import digest
from qrelay.judging.core import JudgeCore
from qrelay.judging.load import strategy_of
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.shots import read_shots
from qrelay.llm.exchange import Message
from qrelay.types import Candidate, CandidateSet, Graded, JudgeIdentity, Judgment, Missing, Passage, Query

SEED: Final = 7
_QUERIES: Final = 6
"""Over so many queries the sample is spread, where there are that many."""


@dataclass(frozen=True, slots=True)
class JudgePreview:
    """One judge's part. grades: grade -> labels; missing: reason -> pairs; tokens: of its prompts, in all."""

    judge: str
    pairs: int
    grades: dict[int, int]
    missing: dict[str, int]
    tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """One pair of the sample with all judgments of it."""

    query: str
    title: str
    text: str
    judgments: tuple[Judgment, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What the sample showed. seconds: of judging it, one replica, loading left out."""

    queries: int
    pairs: int
    seconds: float
    judges: tuple[JudgePreview, ...]
    scored: tuple[Scored, ...]

    @property
    def tokens_a_pair(self) -> float:
        """Prompt tokens of all judges together."""
        return sum(each.tokens for each in self.judges) / self.pairs

    @property
    def pairs_per_s(self) -> float:
        """Pairs, with all their labels, a second."""
        return self.pairs / self.seconds if self.seconds > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a feed would take; hours on one replica like this."""

    queries: int
    pairs: int
    tokens: int
    money: float
    hours: float


def estimate(preview: Preview, queries: int, per_query: float, price_per_million: float) -> Estimate:
    """The whole feed, by the sample: `queries` queries with `per_query` judged passages each."""
    pairs = round(queries * per_query)
    tokens = round(pairs * preview.tokens_a_pair)
    return Estimate(queries, pairs, tokens, tokens * price_per_million / 1e6, pairs / preview.pairs_per_s / 3600)


async def preview(
    core: JudgeCore, sets: Sequence[CandidateSet], clock: Callable[[], float] = time.perf_counter
) -> Preview:
    """Judge the sample.

    Raises:
        InputError: there is nothing to judge.
        QrelayError: a set cannot be judged at all.
    """
    if not any(each.candidates for each in sets):
        raise InputError("the sample holds no pairs: give more queries or pairs")
    started = clock()
    answers = await core.judge(sets)
    seconds = clock() - started
    scored: list[Scored] = []
    for answer in answers:
        if isinstance(answer, QrelayError):
            raise answer
        by_passage: dict[str, list[Judgment]] = {}
        for judgment in answer.judgments:
            by_passage.setdefault(judgment.passage_id, []).append(judgment)
        passages = {c.passage.passage_id: c.passage for c in answer.candidate_set.candidates}
        scored += [
            Scored(answer.candidate_set.query.text, passages[key].title, passages[key].text, tuple(given))
            for key, given in by_passage.items()
        ]
    return Preview(len(sets), len(scored), seconds, _by_judge(scored), tuple(scored))


def _by_judge(scored: Sequence[Scored]) -> tuple[JudgePreview, ...]:
    by_judge: dict[JudgeIdentity, list[Judgment]] = {}
    for each in scored:
        for judgment in each.judgments:
            by_judge.setdefault(judgment.judge, []).append(judgment)
    found = []
    for judge, judgments in by_judge.items():
        grades = Counter(each.outcome.grade for each in judgments if isinstance(each.outcome, Graded))
        missing = Counter(each.outcome.reason for each in judgments if isinstance(each.outcome, Missing))
        tokens = sum(each.prompt_tokens for each in judgments)
        found.append(
            JudgePreview(shown_name(judge), len(judgments), dict(sorted(grades.items())), dict(missing), tokens)
        )
    return tuple(found)


def shown_name(judge: JudgeIdentity) -> str:
    """A judge for people."""
    return f"{judge.strategy} {judge.scale} {judge.fingerprint}"


def examples(settings: JudgeSettings, sets: Sequence[CandidateSet]) -> dict[str, list[Message]]:
    """Judge name -> what it is asked about the first pair. No engine is loaded for it."""
    query, passage = sets[0].query, sets[0].candidates[0].passage
    found = {}
    for name, own in settings.members().items():
        shots = read_shots(own) if own.shots else ()
        found[name] = strategy_of(own, shots).example(query, passage)
    return found


def sampled(sets: Sequence[CandidateSet], pairs: int, seed: int = SEED) -> list[CandidateSet]:
    """About `pairs` pairs, spread evenly over some queries drawn by `seed`; candidates that are not marked for the
    judge are left out where some are."""
    usable = [_marked(each) for each in sets]
    usable = [each for each in usable if each.candidates]
    random.Random(seed).shuffle(usable)
    each_gets = math.ceil(pairs / max(1, min(len(usable), _QUERIES)))
    chosen: list[CandidateSet] = []
    for candidate_set in usable:
        room = min(each_gets, pairs - sum(len(each.candidates) for each in chosen))
        if room <= 0:
            break
        chosen.append(replace(candidate_set, candidates=candidate_set.candidates[:room]))
    return chosen


def _marked(candidate_set: CandidateSet) -> CandidateSet:
    marked = tuple(each for each in candidate_set.candidates if each.sampled)
    return replace(candidate_set, candidates=marked or candidate_set.candidates)


def read_pairs(path: Path) -> list[CandidateSet]:
    """Sets from JSONL, one pair a line: {"query": …, "text": …} and optionally title, reference_answers, metadata.

    Raises:
        MalformedInput: a line that is not so; names it.
    """
    found: dict[str, list[Candidate]] = {}
    queries: dict[str, Query] = {}
    with metadata_in(path) as read:
        for number, (query, passage, answers) in read_records(path, partial(_pair, read)):
            queries.setdefault(query, Query(digest(query)[:12], query, "preview", reference_answers=answers))
            named = replace(passage, passage_id=f"line{number}", doc_id=f"line{number}")
            found.setdefault(query, []).append(Candidate(named, (), True))
    return [CandidateSet(queries[query], tuple(candidates), "preview") for query, candidates in found.items()]


def _pair(read: Callable[[object], dict[str, str]], record: Any) -> tuple[str, Passage, tuple[str, ...]]:
    try:
        query, title, text = str(record["query"]), str(record.get("title", "")), str(record["text"])
        answers = tuple(map(str, record.get("reference_answers") or ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRecord(f'not a JSON object with "query" and "text" ({type(error).__name__}: {error})') from error
    require_text("".join((query, title, text, *answers)), "the pair")
    return query, Passage("", "", title, text, read(record)), answers
