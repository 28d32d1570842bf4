"""The check's figures in plain words: sections of sentences and a table each, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.judging.check.known import PEOPLE
from qrelay.reports.page import DASH, fixed, render
from qrelay.reports.page import known as is_known

COPIES: Final = 0.9
"""Rank correlation from which a judge's order is nearly the system's own."""
DIAGNOSIS: Final = (
    "This is a diagnosis: it qualifies nothing, and exports treat the judge as before. Only people's grades say "
    "whether a judge is right."
)
_COPY: Final = (
    "A judge that copies the retriever agrees with it best: a high figure is not a good one, and one of about zero "
    "is a warning. Overturned: labels that turn the system's order round where hard examples are made of it."
)


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report: sentences, and a table under `columns` where there are rows."""

    title: str
    said: Sequence[str]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def sections(report: Mapping[str, Any]) -> list[Section]:
    """The report of `qrelay judge check` for people."""
    names = {hashed: each["name"] for hashed, each in report["judges"].items()}
    return [
        _retrieval(report["retrieval"], names),
        _judges(report["judges_together"], names),
        _paraphrases(report["paraphrases"], report["judges"]),
        _known(report["known"]),
        Section("What to look at next", list(_next(report))),
    ]


def _retrieval(found: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Section:
    if not found:
        return Section("Agreement with retrieval scores", ["No label with a grade has a retrieval score beside it."])
    rows = [
        (names[each["judge"]], each["system"], f"{each['queries']:,}", f"{each['pairs']:,}",
         _figure(each["rank_correlation"]), _figure(each["auc"]), _percent(each["overturned"]))
        for each in found
    ]  # fmt: skip
    columns = ("judge", "system", "queries", "pairs", "rank correlation", "AUC", "overturned")
    return Section(
        "Agreement with retrieval scores", [_COPY, *(_beside(each, names) for each in found)], columns, rows
    )


def _beside(each: Mapping[str, Any], names: Mapping[str, str]) -> str:
    found, name, system = each["rank_correlation"], names[each["judge"]], each["system"]
    if not is_known(found["value"]):
        why = "it says the same of every passage of a query" if each["flat"] else "no query has enough passages"
        return f"{name} and {system}: no rank correlation can be computed: {why}."
    flat = f" In {each['flat']:,} queries it says the same of every passage." if each["flat"] else ""
    return f"{name} {_meaning(found, system, each['reads_scores'])}{flat}"


def _meaning(found: Mapping[str, Any], system: str, reads_scores: bool) -> str:
    if reads_scores:
        return f"reads retrieval scores, so that it agrees with {system} by construction."
    if found["value"] >= COPIES:
        return f"orders passages almost as {system} does: training it on labels that copy it changes nothing."
    if not is_known(found["low"]):
        return f"was compared with {system} on one query only: that says nothing yet."
    if found["low"] <= 0 <= found["high"]:
        return f"has nothing in common with {system} that can be told from chance: look at its labels."
    if found["high"] < 0:
        return f"contradicts {system}: look whether its grades stand upside down."
    return f"agrees with {system} in part, as a judge that reads may, be it right or wrong."


def _judges(found: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Section:
    title = "Agreement of judges with each other"
    if not found:
        return Section(
            title, ["No pair was graded by two judges: `qrelay judge rejudge` with another one gives such."]
        )
    rows = [
        (" and ".join(names[hashed] for hashed in each["judges"]), f"{each['pairs']:,}", _figure(each["kappa"]),
         _figure(each["rank_correlation"]), f"{each['disputed']:,}")
        for each in found
    ]  # fmt: skip
    said = ["Two judges that agree may be wrong together; pairs that they dispute are the first to look at."]
    for each in found:
        one, other = (names[hashed] for hashed in each["judges"])
        if each["akin"]:
            said.append(f"That {one} and {other} agree would say little: {each['akin']}.")
        if each["most_disputed"]:
            ids = "; ".join(
                f"{pair['query_id']} {pair['passage_id']} ({pair['p'][0]:.2f}, {pair['p'][1]:.2f})"
                for pair in each["most_disputed"]
            )
            said.append(f"{one} and {other} dispute most (query, passage, P(relevant) of each): {ids}.")
    return Section(title, said, ("judges", "pairs", "kappa", "rank correlation", "disputed"), rows)


def _paraphrases(found: Mapping[str, Any], judges: Mapping[str, Any]) -> Section:
    title, cost = "One judge on paraphrases", f"about {found['expected_tokens']:,} prompt tokens"
    if not found["asked"]:
        said = f"Not asked. --paraphrases {found['sampled']} asks the configured judge for {cost}, in this process."
        return Section(title, [said if found["sampled"] else "There is no label with a grade to ask about again."])
    said = (
        f"{found['sampled']:,} pairs were asked again in {found['versions']} versions, half of the pairs where the "
        "judge is least sure. None of the changes should move a label; `no title` may, where only the title names "
        "the subject."
    )
    names = {hashed: judges.get(hashed, {"name": name})["name"] for hashed, name in found["judges"].items()}
    unknown = [name for hashed, name in names.items() if hashed not in judges]
    rows = [
        (names[each["judge"]], each["rewrite"], f"{each['pairs']:,}", _figure(each["mean_change"]),
         fixed(each["largest"]), _percent(each["flips"]), f"{each['missing']:,}")
        for each in found["rewrites"]
    ]  # fmt: skip
    columns = ("judge", "change", "pairs", "mean change of P", "largest", "flips", "missing")
    notes = [f"{name} made none of the ledger's labels: is this the right --config?" for name in unknown]
    notes += [_most_moved(name, hashed, found["rewrites"]) for hashed, name in names.items()]
    notes += [f"It ended early: {found['stopped']}"] if found["stopped"] else []
    notes += [f"Some queries could not be judged, first {found['failed']}"] if found["failed"] else []
    return Section(title, [said, *notes], columns, rows)


def _most_moved(name: str, hashed: str, rewrites: Sequence[Mapping[str, Any]]) -> str:
    own = [each for each in rewrites if each["judge"] == hashed and each["pairs"]]
    if not own:
        return f"{name} gave no grade to compare."
    worst = max(own, key=lambda each: each["mean_change"]["value"])
    return (
        f"{name} is moved most by '{worst['rewrite']}': P(relevant) by {worst['mean_change']['value']:.3f} on "
        f"average; {_percent(worst['flips'])} of the pairs cross 0.5."
    )


def _known(found: Mapping[str, Any]) -> Section:
    title, people = "Known answers among negatives", found["source"] == PEOPLE
    if not found["known"]:
        none = "no override calls a pair relevant" if people else "the file names none"
        return Section(title, [f"No answers are known ({none}): give --known FILE (click logs, FAQ pairs, qrels)."])
    said = [
        f"Known to be relevant by {'people' if people else 'the file'}: {found['known']:,} pairs. With a grade: "
        f"{found['graded']:,}; the judge gave none: {found['missing']:,}; not judged: {found['not_judged']:,}; of a "
        f"query that the ledger does not hold: {found['known'] - found['looked_up']:,}."
    ]
    if found["graded"]:
        said.append(
            f"Of those with a grade the judge calls {found['refused']:,} not relevant "
            f"({_percent(found['share'])}); an export would write {found['hard']:,} of them as hard negatives and "
            f"{found['easy']:,} as easy ones."
        )
    if people:
        said.append("Where people graded what judges dispute, that is the share among disputed pairs.")
    rows = [
        (each["query_id"], each["id"], fixed(each["p"]), {"": "no", "hard": "hard", "easy": "easy"}[each["mined"]])
        for each in found["examples"]
    ]
    return Section(title, said, ("query", "known answer", "P(relevant)", "written as negative"), rows)


def _next(report: Mapping[str, Any]) -> Iterator[str]:
    collection, examples = report["collection"], report["known"]["examples"]
    if examples:
        yield (
            f"Why a known answer is a negative: qrelay mine --collection {collection} --explain "
            f"{examples[0]['query_id']}"
        )
    if any(each["disputed"] for each in report["judges_together"]):
        yield f"The pairs that judges dispute: qrelay label queue --collection {collection} --by disagreement"
    yield (
        f"Have 50 pairs graded: qrelay judge slice --collection {collection} --n 50 --out slice.tsv, then qrelay "
        "judge qualify."
    )
    yield DIAGNOSIS


def as_text(report: Mapping[str, Any]) -> str:
    """For a terminal: nothing is cut, whatever its width."""
    lines = [_head(report)]
    for section in sections(report):
        lines += ["", section.title, *(f"  {each}" for each in section.said)]
        table = [section.columns, *section.rows] if section.rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += [
            "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    return "\n".join(lines)


def as_page(report: Mapping[str, Any]) -> str:
    """The same as HTML, without script or network; all texts are escaped."""
    return render("check.html", collection=report["collection"], head=_head(report), sections=sections(report))


def _head(report: Mapping[str, Any]) -> str:
    judges = "; ".join(
        f"{each['name']}: {each['labels']:,} labels, {each['relevant']:,} relevant, {each['counted']:,} count"
        for each in report["judges"].values()
    )
    return (
        f"{report['collection']}: {report['queries']:,} queries, {report['pairs']:,} labelled pairs. "
        f"{judges or 'No label has a grade.'}"
    )


def _figure(found: Mapping[str, Any]) -> str:
    bounds = f" ({found['low']:.2f} to {found['high']:.2f})" if is_known(found["low"]) else ""
    return f"{fixed(found['value'])}{bounds}"


def _percent(found: Mapping[str, Any]) -> str:
    if not is_known(found["value"]):
        return DASH
    bounds = f" ({found['low']:.0%} to {found['high']:.0%})" if is_known(found["low"]) else ""
    return f"{found['value']:.0%}{bounds}"
