"""The demo's answer key: whether a passage answers one of its questions, told by people's reading and not by a judge.

answers.yaml has the rule and the answers; further/ has twenty questions more, for judges that were changed while one
looked at the first forty. read.tsv names the documents that were read for both, with a hash of what they say: the
corpus is the running Python's documentation, and what nobody has read of it is neither right nor wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from qrelay.index.documents import Document
from qrelay.index.pydocs import read_python_docs
from qrelay.parsing import yaml_document
from qrelay.types import Passage

HERE: Final = Path(__file__).parent
CORPUS: Final = f"python-docs:@{HERE / 'modules.txt'}"
"""As `qrelay index build` takes it."""
SETS: Final = {"the demo's questions": HERE, "the further questions": HERE / "further"}
"""Folders with queries.jsonl and the answers.yaml that belongs to it."""
_DIGITS: Final = 12


class Verdict(StrEnum):
    """What the key says of a passage."""

    RIGHT = "yes"
    WRONG = "no"
    UNREAD = "not read"


@dataclass(frozen=True)
class Key:
    """answers: question -> document id -> the words by which its passages that answer are known; none: all of them.
    unread: documents of this Python that say what nobody has read. unanswered: questions that none of its documents
    answers."""

    answers: Mapping[str, Mapping[str, Sequence[str]]]
    unread: frozenset[str]
    unanswered: frozenset[str]

    def verdict(self, question: str, passage: Passage) -> Verdict:
        """Of a question of this key."""
        words = self.answers[question].get(passage.doc_id)
        text = _line(passage.text)
        if words is not None and (not words or any(_line(each) in text for each in words)):
            return Verdict.RIGHT
        return Verdict.UNREAD if passage.doc_id in self.unread else Verdict.WRONG


def read_key(folder: Path, documents: Sequence[Document]) -> Key:
    """The key of a folder of `SETS` for a corpus of these documents."""
    questions = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf8").splitlines()]
    by_id = yaml_document((folder / "answers.yaml").read_bytes())
    answers = {each["text"]: by_id[each["query_id"]] for each in questions}
    read = {*(HERE / "read.tsv").read_text("utf8").splitlines()}
    unread = frozenset(each.doc_id for each in documents if read_line(each) not in read)
    known = {each.doc_id for each in documents}
    return Key(answers, unread, frozenset(text for text, each in answers.items() if not each.keys() & known))


def demo_documents() -> Iterator[Document]:
    """The demo's corpus, of this Python."""
    return read_python_docs(CORPUS.partition(":")[2])


def read_line(document: Document) -> str:
    """What read.tsv says of a document that was read."""
    return f"{document.doc_id}\t{hashlib.sha256(document.text.encode()).hexdigest()[:_DIGITS]}"


def _line(text: str) -> str:
    return " ".join(text.split())
