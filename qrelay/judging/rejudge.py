"""Judging again what the ledger holds: sets in, new labels back, batch by batch.

What was sent is in the ledger; what was judged is in the cache. So a run that is stopped, by a budget or a signal,
goes on where it was: `last_query_id` says from where. Labels that are missing for a reason that may heal are counted
and not sent: the ledger holds an older label, and the next run asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from qrelay.errors import AnswersPending, BudgetExhausted, OnHold, QrelayError
from qrelay.identity import judge_digest
from qrelay.judging.core import JudgeCore
from qrelay.judging.failures import hold_of, transient_missing
from qrelay.types import CandidateSet, JudgedSet, Missing

Send = Callable[[Sequence[JudgedSet]], Awaitable[Sequence[int | QrelayError]]]
"""Sends judged sets; answers each with how many labels were new, or its error."""


@dataclass(slots=True)
class Rejudged:
    """A run so far. pairs: judged (query, passage) pairs; labels: of all judges; graded, cached, missing: of these
    labels; judges: whose they are, by the judge's hash; added: new in the ledger; failed: (query_id, error) of sets
    that were not taken; stopped: why it ended early, empty where it did not; last_query_id: the last one that is
    done."""

    sets: int = 0
    pairs: int = 0
    labels: int = 0
    graded: int = 0
    cached: int = 0
    missing: int = 0
    judges: dict[str, str] = field(default_factory=dict)
    added: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped: str = ""
    last_query_id: str = ""


async def rejudge(
    core: JudgeCore,
    sets: Iterable[JudgedSet],
    send: Send,
    *,
    batch: int = 8,
    progress: Callable[[Rejudged], None] = lambda _: None,
) -> Rejudged:
    """Judge the marked passages of each set with `core` and send the labels. A used-up budget ends it early, and so
    does an endpoint that asks for a long pause or refuses the key or a setting. Where labels wait for a batch, all
    that follows is ordered too, and a later run sends it.

    Raises:
        BackendUnavailable: the sink does not answer, or the cache; what was sent before is in the ledger.
    """
    done = Rejudged()
    for part in _batches((each.candidate_set for each in sets), batch):
        try:
            answers = await core.judge(part)
        except BudgetExhausted as error:
            done.stopped = str(error)
            break
        held = _held(answers)
        if held and not done.stopped:
            done.stopped = str(held)
        if isinstance(held, AnswersPending):
            continue
        if held:
            break
        if done.stopped:  # what comes is asked, so that it is ordered; a later run sends it
            continue
        judged = [_counted(done, asked, answer) for asked, answer in zip(part, answers, strict=True)]
        await _sent(done, [each for each in judged if each is not None and each.judgments], send)
        done.last_query_id = part[-1].query.query_id
        progress(done)
    return done


def _held(answers: Sequence[JudgedSet | QrelayError]) -> OnHold | None:
    holds = (hold_of(each) for each in answers if isinstance(each, JudgedSet))
    return next((held for held in holds if held), None)


def count(sets: Iterable[JudgedSet]) -> Rejudged:
    """Sets and pairs that would be judged; nothing is."""
    done = Rejudged()
    for each in sets:
        done.sets += 1
        done.pairs += sum(candidate.sampled for candidate in each.candidate_set.candidates)
        done.last_query_id = each.candidate_set.query.query_id
    return done


def _batches(sets: Iterable[CandidateSet], size: int) -> Iterator[list[CandidateSet]]:
    remaining = iter(sets)
    while part := list(islice(remaining, size)):
        yield part


def _counted(done: Rejudged, asked: CandidateSet, answer: JudgedSet | QrelayError) -> JudgedSet | None:
    """The set with the labels worth sending."""
    done.sets += 1
    if isinstance(answer, QrelayError):
        done.failed.append((asked.query.query_id, str(answer)))
        return None
    missing = sum(isinstance(each.outcome, Missing) for each in answer.judgments)
    done.pairs += len({each.passage_id for each in answer.judgments})
    done.labels += len(answer.judgments)
    judges = (each.judge for each in answer.judgments)
    done.judges |= {judge_digest(judge): f"{judge.strategy}, {judge.model}" for judge in judges}
    done.missing += missing
    done.graded += len(answer.judgments) - missing
    done.cached += sum(each.cached for each in answer.judgments)
    lasting = [each for each in answer.judgments if not transient_missing(replace(answer, judgments=(each,)))]
    return replace(answer, judgments=tuple(lasting))


async def _sent(done: Rejudged, judged: Sequence[JudgedSet], send: Send) -> None:
    if not judged:
        return
    for each, result in zip(judged, await send(judged), strict=True):
        if isinstance(result, QrelayError):
            done.failed.append((each.candidate_set.query.query_id, str(result)))
        else:
            done.added += result
