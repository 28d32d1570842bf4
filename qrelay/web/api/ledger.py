"""Operations on the ledger: labels, queries, counts, decisions. What reads it runs in a thread."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from itertools import islice

from qrelay.labels.choice import in_order, one_a_pair, relevant
from qrelay.labels.deciding import decide as record
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.ledger.reader import JudgeRow, LabelledQuery, Snapshot
from qrelay.labels.ledger.reader import Label as Found
from qrelay.labels.where import Where, parse_where
from qrelay.types import Passage
from qrelay.web.api import models
from qrelay.web.security import Person
from qrelay.web.site import Site


async def labels(site: Site, _: Person, asked: models.LabelsRequest) -> models.Labels:
    """Labels of a collection's pairs, people's decisions first, by query and passage, a page at a time."""
    return await site.reading.run(_labels, site, asked)


async def queries(site: Site, _: Person, asked: models.QueriesRequest) -> models.Queries:
    """A collection's queries with how many of their passages are labelled and relevant, a page at a time."""
    return await site.reading.run(_queries, site, asked)


async def stats(site: Site, _: Person, asked: models.StatsRequest) -> models.StatsAnswer:
    """What the ledger holds, counted by collection."""
    found = await site.reading.run(lambda: site.ledger().stats(asked.collection or None))
    names = models.Stats.model_fields
    return models.StatsAnswer(
        collections=[models.Stats(**{name: getattr(each, name) for name in names}) for each in found]
    )


async def decide(site: Site, person: Person, asked: models.DecideRequest) -> models.Decided:
    """Record what a person decides about a pair; it wins in exports that ask for it. Append-only: nothing is lost."""
    given = asked.author or person.name or site.sink.override_author or getpass.getuser()
    author = person.name if person.verified else given
    wanted = NewOverride(asked.query_id, asked.passage_id, asked.grade, asked.scale, author, asked.note)
    written = await site.deciding.run(lambda: record(site.ledger(), asked.collection, wanted))
    return models.Decided(added=bool(written.added), in_candidates=not written.not_candidates)


def _read(
    snapshot: Snapshot, site: Site, asked: models.Paged, ids: list[str] | None, *, texts: bool
) -> tuple[list[LabelledQuery], str]:
    """(the queries of a page, the token of the next)."""
    snapshot.require_collection(asked.collection)
    found = snapshot.labelled_queries(
        asked.collection,
        candidates=texts,
        ids=ids,
        after=asked.page_token,
        page=asked.page_size + 1,
        overrides=True,
        relevant_grades=site.sink.relevant_grades,
    )
    page = list(islice(found, asked.page_size + 1))
    beyond = len(page) > asked.page_size
    return page[: asked.page_size], page[asked.page_size - 1].query_id if beyond else ""


def _labels(site: Site, asked: models.LabelsRequest) -> models.Labels:
    where = parse_where(asked.where)
    ids = [where.query_id] if where.query_id else None
    with site.ledger().snapshot() as snapshot:
        page, token = _read(snapshot, site, asked, ids, texts=asked.texts)
        judges = {number: judge for number, judge in snapshot.judges().items() if where.names(judge)}
    shown = [each for query in page for each in _of_query(site, asked, where, query, judges)]
    return models.Labels(labels=shown, next_page_token=token)


def _of_query(
    site: Site, asked: models.LabelsRequest, where: Where, query: LabelledQuery, judges: dict[int, JudgeRow]
) -> Iterator[models.Label]:
    """The query's labels that are asked for, by passage; the one that counts first."""
    texts = {each.passage.passage_id: each.passage for each in query.candidates}
    if asked.every:
        ordered = in_order((each for each in query.labels if each.judge_no in judges), judges)
        pairs = [{each.passage_id: each} for each in sorted(ordered, key=lambda each: each.passage_id)]
    else:
        pairs = [one_a_pair(query, judges)]
    for some in pairs:
        for passage_id, label in where.kept(some, judges, site.sink.relevant_grades).items():
            yield _label(query, label, judges[label.judge_no], texts.get(passage_id))


def _label(query: LabelledQuery, label: Found, judge: JudgeRow, passage: Passage | None) -> models.Label:
    return models.Label(
        query_id=query.query_id,
        query=query.text,
        passage_id=label.passage_id,
        grade=label.grade,
        scale=judge.identity.scale,
        p_relevant=label.p_relevant,
        entropy=label.entropy,
        missing=label.missing_reason or "",
        strategy=judge.identity.strategy,
        model=judge.identity.model,
        judge=judge.judge_hash,
        human=label.human,
        generation=label.generation,
        title=passage.title if passage else "",
        text=passage.text if passage else "",
    )


def _queries(site: Site, asked: models.QueriesRequest) -> models.Queries:
    with site.ledger().snapshot() as snapshot:
        page, token = _read(snapshot, site, asked, None, texts=False)
        judges = snapshot.judges()
    wanted = asked.containing.casefold()
    shown = [_query(site, each, judges) for each in page if wanted in each.text.casefold()]
    return models.Queries(queries=shown, next_page_token=token)


def _query(site: Site, query: LabelledQuery, judges: dict[int, JudgeRow]) -> models.QueryOut:
    found = one_a_pair(query, judges).values()
    return models.QueryOut(
        query_id=query.query_id,
        query=query.text,
        labelled=sum(each.grade is not None for each in found),
        relevant=sum(relevant(each, judges, site.sink.relevant_grades) for each in found),
        missing=sum(each.grade is None for each in found),
    )
