"""Identities: hashes that decide when two things are the same thing.

All are sha256 over length-prefixed UTF-8 fields, so that no two different field lists can collide by
concatenation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from qrelay.errors import InvalidQuery
from qrelay.types import CandidateSet, JudgeIdentity, Query

_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def digest(*fields: str | bytes) -> str:
    """sha256 of the fields, each preceded by its length in bytes; 64 hexadecimal characters."""
    sha = hashlib.sha256()
    for field in fields:
        data = field.encode() if isinstance(field, str) else field
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()


def judge_digest(judge: JudgeIdentity) -> str:
    """One judge's identity as a hash: equal only if weights, prompt, scale and decoding all are."""
    return digest(
        judge.model,
        judge.revision,
        judge.quantisation,
        judge.prompt_hash,
        judge.strategy,
        judge.scale,
        judge.decoding,
    )


def judgment_key(
    query_text: str, passage_title: str, passage_text: str, judge_hash: str, metadata: Sequence[str] = ()
) -> str:
    """The identity of one label: same key, same label. `judge_hash` comes from `judge_digest`.

    The title is part of what the judge reads, so it is part of the key; so are the values of the metadata that it
    reads, of which most judges read none.
    """
    return digest(query_text, passage_title, passage_text, judge_hash, *metadata)


def query_fingerprint(collection: str, query_id: str, text: str) -> str:
    """The identity of one submission: the same id with another text is another submission. Its rounds share it, as
    they are ordered: what is done for one is done for those before."""
    return digest(collection, query_id, text)


def forgotten_hash(collection: str, query_id: str) -> str:
    """What is kept of a forgotten query. Who knows an id can tell whether it was forgotten; an id that can be guessed
    is not hidden by it."""
    return digest("forgotten", collection, query_id)


def query_id_of(text: str) -> str:
    """The id of a query that came without one."""
    return f"q-{digest(text)[:16]}"


def round_fields(query_round: int) -> tuple[str, ...]:
    """What a message's identity gains by its query's round, so that no stream takes a later round for a repetition.
    Nothing for round 0, whose messages keep the ids that they had before there were rounds."""
    return (f"round {query_round}",) if query_round else ()


def feed_message_id(record: Query | CandidateSet) -> str:
    """The deterministic Nats-Msg-Id under which a query is fed, or a candidate set."""
    query, candidates = (record, ()) if isinstance(record, Query) else (record.query, (candidates_digest(record),))
    return digest(query.collection, query.query_id, query.text, *candidates, *round_fields(query.round))[:40]


def candidates_digest(record: CandidateSet) -> str:
    """The identity of what is judged of a query: its passages, their texts, and every system's score and rank. Not
    their metadata, which most judges do not read."""
    fields: list[str] = []
    for candidate in record.candidates:
        passage = candidate.passage
        fields += [passage.passage_id, passage.doc_id, passage.title, passage.text, str(len(candidate.scores))]
        fields += [str(value) for score in candidate.scores for value in score]
    return digest(*fields)


def require_collections(names: Iterable[str]) -> None:
    """Raises ValueError where one cannot be a collection's name."""
    if bad := [name for name in names if not valid_collection(name)]:
        raise ValueError(f"{', '.join(map(repr, bad))}: use up to 64 of a-z 0-9 _ -, the first a letter or digit")


def valid_collection(name: str) -> bool:
    """Whether `name` can be a collection: it becomes a token of queue subjects and folder names."""
    return _COLLECTION.fullmatch(name) is not None


def require_collection(name: str) -> None:
    """Raises InvalidQuery: no collection can have this name."""
    if not valid_collection(name):
        raise InvalidQuery(f"collection {name[:80]!r}: use 1 to 64 of a-z, 0-9, - and _, a letter or digit first")
