"""What a batch that came to its end brought: its files' lines become answers, and the rest is settled."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Final

from qrelay.errors import InputError
from qrelay.http.refusals import ParameterRefused, Unexplained, classified, described, failure_of
from qrelay.llm.batch.api import NAMES, BatchApi, Remote
from qrelay.llm.batch.lines import Shown, read_lines
from qrelay.llm.batch.records import Batch, BatchStore, Line
from qrelay.runtime import faults

_PART: Final = 500
_PARAMETERS: Final = dict.fromkeys(
    ("max_tokens", "max_completion_tokens", "temperature", "stop", "logprobs", "top_logprobs"), 0
)
"""Parameters whose refusal is an answer: whoever asked may ask otherwise."""


@dataclass(slots=True)
class Collected:
    """answers: lines that are one; new: those that were not stored before; tokens: of all prompts that were answered;
    unanswered: lines that are no answer, by what they say; gone: files that the endpoint does not have."""

    answers: int = 0
    new: int = 0
    tokens: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    gone: list[str] = field(default_factory=list)

    def lost(self, remote: Remote) -> bool:
        """Whether the endpoint does not have a file of answers that it must have."""
        return bool(self.gone) or (remote.done > 0 and not remote.output_id)

    def lacks(self, remote: Remote) -> str:
        """What of its answers the endpoint does not show, though it says that it has them; "" for nothing."""
        done = f"the endpoint says that {remote.done} requests are done"
        if self.lost(remote):
            return f"{done}, and does not have the file of their answers"
        shown = self.answers + sum(self.unanswered.values())
        return f"{done}, and shows {self.answers} answers" if shown < remote.done else ""

    def reason(self, status: str) -> str:
        """Why requests of the batch have no answer."""
        said = ", ".join(f"{count} x {what}" for what, count in self.unanswered.most_common(3))
        return f"the batch is {status}" + (f"; lines without an answer: {said}" if said else "")


async def collect(
    batch: Batch, remote: Remote, api: BatchApi, store: BatchStore, most_bytes: int, clock: Callable[[], datetime]
) -> Collected:
    """Stores every answer in the batch's files. most_bytes: of a line. It may be killed and begun again at any
    moment.

    Raises:
        QrelayError: the endpoint or the store does not answer.
    """
    found = Collected()
    for file_id in filter(None, (remote.output_id, remote.error_id)):
        with tempfile.TemporaryFile() as file:
            if not await api.download(file_id, file):
                found.gone.append(file_id)
                continue
            file.seek(0)
            for part in _parts(answers(file, found, most_bytes, others=remote.done > 0)):
                found.new += store.answer(batch.name, part, clock())
                faults.point("batch.answers.some")
    faults.point("batch.answers.all")
    return found


def answers(file: IO[bytes], found: Collected, most_bytes: int, *, others: bool) -> Iterator[Line]:
    """The answers in an output or error file; what is none is counted. most_bytes: of a line; others: whether other
    requests of the batch were answered."""
    for shown in read_lines(file, most_bytes):
        if shown is None:
            found.unanswered["unreadable"] += 1
        elif why := _no_answer(shown, others=others):
            found.unanswered[why] += 1
        else:
            found.tokens += shown.tokens
            found.answers += 1
            yield Line(shown.key, shown.status, _dumped(shown.body), shown.tokens)


def _no_answer(shown: Shown, *, others: bool) -> str:
    """Why a line answers nothing; "" where it does, be it by a refusal that is the request's own. others: whether
    other requests of the batch were answered, so that a refusal without a reason is not the endpoint's."""
    if not isinstance(shown.body, dict):
        return "no body"
    failure = failure_of(shown.status or 500, shown.body)
    if failure is None:
        return ""
    error = classified(*failure, _PARAMETERS, None, names=NAMES, secret="", retry_s=0.0)
    own = isinstance(error, InputError | ParameterRefused) and (others or not isinstance(error, Unexplained))
    return "" if shown.status and own else described(*failure)


def _dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _parts(lines: Iterator[Line]) -> Iterator[list[Line]]:
    part: list[Line] = []
    for line in lines:
        part.append(line)
        if len(part) == _PART:
            yield part
            part = []
    if part:
        yield part


def blame(batch: Batch, remote: Remote, store: BatchStore) -> list[Line]:
    """Refusals of the requests whose lines a failed validation names; lines are counted from 1, as they were
    written."""
    at_fault = {line: (code, message) for code, line, message in remote.problems if line}
    if not at_fault:
        return []
    refused = []
    for number, (key, _) in enumerate(store.lines(batch.name), start=1):
        if number in at_fault:
            code, message = at_fault[number]
            refused.append(Line(key, 400, _dumped({"error": {"code": code or "invalid", "message": message}})))
    return refused
