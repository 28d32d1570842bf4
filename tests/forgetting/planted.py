"""An installation whose every store holds a query with a plant, beside another query without it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from qrelay import wire
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.identity import judge_digest, judgment_key
from qrelay.judging.batches.store import SqlBatches
from qrelay.labels.ledger.ledger import Ledger
from qrelay.llm.batch.records import Request, Target
from qrelay.models.registry import DataSource, Registry
from qrelay.runtime.dead_letters import letter_subject
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from qrelay.training.evaluation.freezing import Labels, freeze
from qrelay.types import DeadLetter, JudgedSet, Query
from tests.labels.builders import JUDGE, NOW, OTHER_JUDGE, dead_letter, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_file
from tests.models.registry.models import published

PLANT = "zqxwvk"
TEXT = f"does {PLANT} cure the 'rash' of Ana Gruber?"
OTHER = "does it rain?"
LONGER = f"{OTHER} And where?"
ANSWER = f"yes, {PLANT} does"


def planted_set(query_id: str = "q1", text: str = TEXT, quoted: str = f'asks whether "{TEXT}"') -> JudgedSet:
    """Judged, with a judge that quotes the query."""
    made = judged_set(query_id, text)
    query = Query(query_id, text, "docs", NOW, {"user": text}, (ANSWER if text == TEXT else "an answer",))
    judgments = tuple(
        replace(
            each, raw_reply=quoted, judgment_key=judgment_key(text, "", each.passage_id, judge_digest(each.judge))
        )
        for each in made.judgments
    )
    return JudgedSet(replace(made.candidate_set, query=query), judgments)


async def fill(folder: Path, broker: JetStreamBroker, ledger: Ledger, cache: str) -> None:
    """Every store of the installation in the folder."""
    one, other = planted_set(), planted_set("q2", OTHER, "2")
    await _feed(folder, broker)
    await _queues(broker, one, other)
    again = judgment("d0#0", graded(2), OTHER_JUDGE, raw_reply=TEXT)
    ledger.commit([one, other])
    ledger.rejudge([relabelled(one, again)])
    ledger.record_dead_letters(_letters(one))
    _judged(cache, one, other)
    _files(folder, ledger)


async def _feed(folder: Path, broker: JetStreamBroker) -> None:
    async def lines() -> AsyncIterator[str]:
        for query_id, text in (("q1", TEXT), ("q2", OTHER), ("q3", LONGER)):
            yield json.dumps({"query_id": query_id, "text": text, "reference_answers": [ANSWER] * (text == TEXT)})

    with Journal(folder / "feed" / "docs.sqlite") as journal:
        assert not (await Feeder(broker, journal, collection="docs").feed(lines())).rejected


async def _queues(broker: JetStreamBroker, *sets: JudgedSet) -> None:
    for made in sets:
        for queue, record in (
            (Queue.RETRIEVED, made.candidate_set), (Queue.RERANKED, made.candidate_set), (Queue.JUDGED, made),
        ):  # fmt: skip
            payload, headers = wire.encode(record)
            query_id = made.candidate_set.query.query_id
            await broker.publish(queue.subject("docs"), payload, headers, f"{query_id} in {queue}")
    for letter in _letters(sets[0]):
        payload, headers = wire.encode(letter)
        await broker.publish(letter_subject(letter), payload, headers, letter.dead_letter_id)


def _letters(made: JudgedSet) -> list[DeadLetter]:
    packed, headers = wire.encode(made.candidate_set)
    return [
        dead_letter("l1", "q1", TEXT, payload=packed, headers=headers, detail=f"cannot judge {TEXT!r}"),
        dead_letter("l2", "", "", collection="", payload=json.dumps({"text": TEXT}).encode(), detail="unreadable"),
        dead_letter("l3", "q9", OTHER, payload=b"another"),
    ]


def _judged(cache: str, *sets: JudgedSet) -> None:
    batches = SqlBatches(cache)
    graded_ones = [each for made in sets for each in made.judgments if each.outcome.__class__.__name__ == "Graded"]
    batches.put_many(graded_ones)
    batches.note("way", "unrelated")
    target = Target("account", "/v1/chat/completions", "model")
    prompts = {"r1": f"Query: {TEXT}\nPassage: rain", "r2": f"Query: {OTHER}\nPassage: rain"}
    bodies = [
        Request(key, target, json.dumps({"messages": [{"content": said}]}).encode()) for key, said in prompts.items()
    ]
    batches.add(bodies, datetime.now(UTC))
    batches.close()


def _files(folder: Path, ledger: Ledger) -> None:
    manifest = export_file(ledger, "docs", "qrels", folder / "qrels.tsv", unmeasured=True)
    export_file(ledger, "docs", "triples", folder / "triples.jsonl", unmeasured=True)
    source = DataSource("train", manifest["sha256"], manifest["rows"], manifest)
    published(Registry(folder / "registry"), "a", judge=judge_digest(JUDGE), data=[source])
    data = folder / "training" / "job" / "data" / "triples"
    data.mkdir(parents=True)
    rows = [{"query": text, "positive": f"about\n{TEXT}"} for text in (TEXT, OTHER, LONGER)]
    rows[1:] = [{**row, "positive": "rain"} for row in rows[1:]]
    (folder / "training" / "job" / "job.json").write_text(json.dumps({"name": "job", "collection": "docs"}))
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reports").mkdir()
    (folder / "reports" / "judges.html").write_text(f"<td>{TEXT.replace(chr(39), '&#39;')}</td><td>{LONGER}</td>")
    (folder / "to-grade").mkdir()
    (folder / "to-grade" / "sample.tsv").write_text(
        f"query_id\tpassage_id\tgrade\tquery\ttitle\ttext\nq1\td0#0\t\t{TEXT}\t\tx\nq2\td0#0\t\t{OTHER}\t\tx\n"
    )
    _frozen(folder)
    (folder / "backup.sqlite").write_bytes(b"as a copy holds it: " + TEXT.encode())


def _frozen(folder: Path) -> None:
    made = folder / "made"
    made.mkdir()
    (made / "corpus.jsonl").write_text(json.dumps({"_id": "d0", "title": "", "text": "rain"}) + "\n")
    queries = (("q1", TEXT), ("q2", OTHER))
    (made / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in queries))
    (made / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td0\t1\n")
    files = (made / "corpus.jsonl", made / "queries.jsonl", made / "test.tsv")
    freeze(folder / "sets" / "small", files, name="small", labels=Labels("gold", (), 1))
    for path in files:
        path.unlink()
