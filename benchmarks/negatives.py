"""How many mined hard negatives are in fact gold answers, without guards, with each alone, and with all.

    python -m benchmarks.negatives --ledger ledger.sqlite --collection medquad --qrels test.tsv.gz dev.tsv.gz
        [--judge HASH] [--set agreement_rank=3 …] [--show 20] [--json]

Mining sees the judge's labels and never the gold, which is for the counting alone. qrels: BEIR TSV, plain or .gz, a
header and then query, document and score, of documents: passage `doc#n` belongs to `doc`. Counted are queries that
the ledger holds and that have a gold document; a hard negative from one of these documents is a false one. Gold is
sparse, so an answer that nobody noted counts as a true negative; and a gold document's chunk that does not hold the
answer counts as a false one. --set gives a rule another number than its default, wherever it is on.

A row is one set of rules; the first takes the same passages by rank alone, as if unjudged. examples: queries that
still give one. mined: hard negatives, with the false ones and Wilson's 95% interval of their share (negatives of one
query are not independent, so the true interval is somewhat wider). exported: those of them in examples, which alone
reach a file. easy: easy negatives in examples. `--set 1-4=4` calls only grade 4 relevant: a stricter judge.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qrelay.errors import InputError
from qrelay.formats.beir import qrel_rows
from qrelay.labels.audit.figures import estimate
from qrelay.labels.choice import counting_judges
from qrelay.labels.examples import examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import NEGATIVE, POSITIVE, JudgedPassage, MiningRules, Verdict
from qrelay.naming import document_of

Gold = Mapping[str, frozenset[str]]

OFF: Mapping[str, Any] = {
    "negative_threshold": 1.0,
    "confident_positive": 0.0,
    "max_share_of_best": 0.0,
    "judge_rank": 0,
    "agreement_rank": 0,
    "duplicates": False,
    "near_duplicate": 0.0,
    "siblings": False,
    "guard_ratio": 0.0,
    "guard_margin": 0.0,
}
"""Every guard and the number at which it is off."""
NO_JUDGE = "no judge, by rank"
"""What is common elsewhere: the top of a ranking is taken for negatives, unjudged."""


def variants(rules: MiningRules) -> dict[str, MiningRules]:
    """name -> rules: no guards, each guard of `rules` alone, all of them, and all but each one."""
    bare = replace(rules, **OFF)
    working = [name for name, off in OFF.items() if getattr(rules, name) != off]
    alone = {f"only {name}": replace(bare, **{name: getattr(rules, name)}) for name in working}
    without = {f"all but {name}": replace(rules, **{name: OFF[name]}) for name in working}
    return {"no guards": bare, **alone, "all guards": rules, **without}


@dataclass
class Tally:
    """Counts over queries for one set of rules."""

    examples: int = 0
    mined: int = 0
    mined_false: int = 0
    exported: int = 0
    exported_false: int = 0
    easy: int = 0
    easy_false: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    """Of the false ones in examples."""
    found: list[dict[str, Any]] = field(default_factory=list)
    """The false ones in examples, for people."""

    def add(self, query: str, verdicts: Sequence[Verdict], documents: frozenset[str]) -> None:
        """One query's verdicts; `documents`: its gold ones."""
        negatives = [verdict for verdict in verdicts if verdict.role == NEGATIVE]
        hard = [verdict for verdict in negatives if verdict.hard]
        false = [verdict for verdict in hard if document_of(verdict.passage_id) in documents]
        self.mined += len(hard)
        self.mined_false += len(false)
        if not hard or not any(verdict.role == POSITIVE for verdict in verdicts):
            return
        self.examples += 1
        self.exported += len(hard)
        self.exported_false += len(false)
        easy = [verdict for verdict in negatives if not verdict.hard]
        self.easy += len(easy)
        self.easy_false += sum(document_of(verdict.passage_id) in documents for verdict in easy)
        self.by_reason.update(verdict.reason for verdict in false)
        self.found += [_described(query, verdict) for verdict in false]

    def as_json(self, show: int) -> dict[str, Any]:
        """Counts; shares with their 95% intervals, null where nothing was counted."""
        return {
            "examples": self.examples,
            "mined": _share(self.mined_false, self.mined),
            "exported": _share(self.exported_false, self.exported),
            "easy": _share(self.easy_false, self.easy),
            "false_by_reason": dict(sorted(self.by_reason.items())),
            "false_negatives": self.found[:show],
        }


def read_gold(paths: Sequence[Path]) -> Gold:
    """query_id -> its documents with a score above 0. Raises MalformedInput: a line that is no qrel."""
    found: dict[str, set[str]] = {}
    for path in paths:
        for _, (query_id, document, score) in qrel_rows(path, float):
            if score > 0:
                found.setdefault(query_id, set()).add(document)
    return {query_id: frozenset(documents) for query_id, documents in found.items()}


def measure(
    ledger: Ledger, collection: str, gold: Gold, rules: MiningRules, judge: str | None = None
) -> tuple[int, dict[str, Tally]]:
    """(queries with gold, variant -> its tally). Gold chooses the queries and counts; mining does not see it."""
    chosen = variants(rules)
    tallies = {name: Tally() for name in (NO_JUDGE, *chosen)}
    queries = 0
    for query_id, passages in _pools(ledger, collection, rules, judge):
        documents = gold.get(query_id)
        if documents is None:
            continue
        queries += 1
        tallies[NO_JUDGE].add(query_id, mine(_unjudged(passages), chosen["no guards"]), documents)
        for name, variant in chosen.items():
            tallies[name].add(query_id, mine(passages, variant), documents)
    return queries, tallies


def _unjudged(passages: Sequence[JudgedPassage]) -> list[JudgedPassage]:
    """The same passages as if nobody had looked: everything that is ranked high is a negative."""
    return [replace(each, grade=0, p_relevant=0.0) for each in passages]


def _pools(
    ledger: Ledger, collection: str, rules: MiningRules, judge: str | None
) -> Iterator[tuple[str, list[JudgedPassage]]]:
    with ledger.snapshot() as snapshot:
        snapshot.require_collection(collection)
        judges = counting_judges(snapshot, collection, rules, judge)
        for example in examples(snapshot, collection, judges, rules):
            yield example.query.query_id, [verdict.judged for verdict in example.verdicts]


def _share(part: int, whole: int) -> dict[str, Any]:
    figure = estimate(part, whole) if whole else None
    return {
        "negatives": whole,
        "false": part,
        "share": figure.value if figure else None,
        "low": figure.low if figure else None,
        "high": figure.high if figure else None,
    }


def _described(query: str, verdict: Verdict) -> dict[str, Any]:
    judged = verdict.judged
    return {
        "query_id": query,
        "passage_id": verdict.passage_id,
        "reason": verdict.reason,
        "grade": judged.grade,
        "p_relevant": judged.p_relevant,
        "ranks": {score.system: score.rank for score in judged.candidate.scores if score.rank},
    }


def rules_with(settings: Sequence[str]) -> MiningRules:
    """The defaults with these `name=number` instead; a scale's name sets its least relevant grade.

    Raises:
        InputError: no such rule, or not a number.
    """
    rules = MiningRules()
    known = {each.name: type(getattr(rules, each.name)) for each in fields(rules) if each.name != "relevant_grades"}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in rules.relevant_grades and value.isdecimal():
            rules = replace(rules, relevant_grades={**rules.relevant_grades, name: int(value)})
            continue
        if name not in known:
            raise InputError(f"--set {setting}: there is no such rule; use {', '.join(known)}")
        try:
            number = float(value)
        except ValueError:
            raise InputError(
                f"--set {setting}: {value!r} is not a number (1 and 0 turn a switch on and off)"
            ) from None
        rules = replace(rules, **{name: known[name](number)})
    return rules


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['collection']}: {report['queries']} queries with gold; false: from a gold document of the query")
    print(
        f"{'rules':<28}{'examples':>9}{'mined':>7}{'false':>6}  {'share [95%]':<25}{'exported':>9}{'false':>6}  share"
    )
    for name, row in report["variants"].items():
        mined, exported = row["mined"], row["exported"]
        print(
            f"{name:<28}{row['examples']:>9}{mined['negatives']:>7}{mined['false']:>6}  {_percent(mined):<25}"
            f"{exported['negatives']:>9}{exported['false']:>6}  {_percent(exported)}"
        )
    easy = report["variants"]["all guards"]["easy"]
    print(f"easy negatives with all guards: {easy['negatives']}, false {easy['false']}, {_percent(easy)}")
    for found in report["variants"]["all guards"]["false_negatives"]:
        print(json.dumps(found))


def _percent(found: Mapping[str, Any]) -> str:
    if found["share"] is None:
        return "nothing mined"
    return f"{found['share']:.2%} [{found['low']:.2%}, {found['high']:.2%}]"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", required=True, help="path or URL")
    parser.add_argument("--collection", required=True)
    parser.add_argument("--qrels", required=True, nargs="+", type=Path, help="BEIR TSV files, plain or .gz")
    parser.add_argument("--judge", help="only this judge's labels")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="RULE=NUMBER")
    parser.add_argument("--show", type=int, default=0, help="false negatives to list")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    rules = rules_with(given.settings)
    ledger = Ledger.open(given.ledger, create=False)
    try:
        queries, tallies = measure(ledger, given.collection, read_gold(given.qrels), rules, given.judge)
    finally:
        ledger.close()
    report = {
        "collection": given.collection,
        "queries": queries,
        "rules": asdict(rules),
        "variants": {name: tally.as_json(given.show) for name, tally in tallies.items()},
    }
    if given.json:
        print(json.dumps(report))
    else:
        _print(report)


if __name__ == "__main__":
    main()
