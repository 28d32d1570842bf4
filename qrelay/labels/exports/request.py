"""What an export is asked for: which labels, which format, how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from qrelay.errors import InputError
from qrelay.labels.exports.catalogue import EXAMPLES_USE, FORMATS, NO_LABELS, Format
from qrelay.labels.exports.splits import BY_QUERY, Splits, parse_splits
from qrelay.labels.mining.rounds import RoundLimits
from qrelay.labels.mining.rules import MiningRules
from qrelay.labels.permission import Allowed
from qrelay.labels.qualification import NO_REPORT, Report, read_report
from qrelay.labels.settings import SinkSettings
from qrelay.labels.where import Where, parse_where
from qrelay.types import SYSTEMS

BY_PASSAGE: Final = "passage"
BY_DOCUMENT: Final = "document"
"""What a row is about: see `documents.py`."""
MAX_NEGATIVE_COLUMNS: Final = 64


@dataclass(frozen=True, slots=True)
class Options:
    """What single formats may be told.

    negatives: negative columns of st-ntuple. system: whose run `run` is. license: the card's licence, as the hub
    spells it; empty: the card says that none was given. name: the data set's name on the card; empty: the collection.
    """

    negatives: int = 5
    system: str = ""
    license: str = ""
    name: str = ""
    scores: bool = False
    """Whether P(relevant) stands beside passages as a teacher score, in formats that have a place for it."""
    splits: tuple[str, ...] = ()
    """Set by the request: the names of the splits, or none."""


@dataclass(frozen=True, slots=True)
class Request:
    """One export.

    judge: a judge hash, the beginning of one, or a strategy; None: see `labels/choice.py`. where: which of the labels
    that count are meant. overrides: people's decisions win. since: only queries that changes after this number
    touched, whole; None: all. rules: of mining; limits: of what one round of training takes: an increment is a round,
    and so is an export of everything. report: what was measured of the judges; unmeasured, unqualified: let labels
    train all the same whose judge it does not name, or finds short. by: what a row is about.
    """

    collection: str
    kind: str
    judge: str | None = None
    where: str = ""
    overrides: bool = False
    since: int | None = None
    splits: Splits | None = None
    rules: MiningRules = field(default_factory=MiningRules)
    limits: RoundLimits = field(default_factory=RoundLimits)
    report: Report = NO_REPORT
    unqualified: bool = False
    unmeasured: bool = False
    options: Options = Options()
    by: str = BY_PASSAGE

    @property
    def format(self) -> Format:
        """The format asked for."""
        return FORMATS[self.kind]

    @property
    def allowed(self) -> Allowed:
        """What was allowed, for training data."""
        return Allowed(self.unmeasured, self.unqualified)

    @property
    def folder(self) -> bool:
        """Whether the export is a folder: by its format, or because it has a file a split."""
        return self.format.folder or self.splits is not None

    @property
    def parsed_where(self) -> Where:
        """The conditions on labels."""
        return parse_where(self.where)

    @property
    def people(self) -> bool:
        """Whether people's decisions are labels: asked for, or spoken of by `where`."""
        return self.overrides or self.parsed_where.asks_people

    def check(self) -> None:
        """Refuses what cannot be, before anything is read.

        Raises:
            InputError: no such format, or options that do not fit it or each other.
        """
        if self.kind not in FORMATS:
            raise InputError(f"there is no export format {self.kind!r}: use {', '.join(FORMATS)}")
        if self.by not in (BY_PASSAGE, BY_DOCUMENT):
            raise InputError(f"there is no export by {self.by[:40]!r}: use {BY_PASSAGE} or {BY_DOCUMENT}")
        conditions = self.parsed_where
        if self.format.use == NO_LABELS and (conditions.labels or conditions.judges or conditions.strategies):
            raise InputError(f"{self.kind} holds no labels: of --where, only query_id=ID can choose what is in it")
        if self.kind == "run" and len(self.options.system.split()) != 1:
            raise InputError(f"a run is of one system: name {', '.join(SYSTEMS)} or a fed one with --system")
        if self.options.scores and not self.format.scores:
            scored = ", ".join(name for name, each in FORMATS.items() if each.scores)
            raise InputError(f"{self.kind} takes no --scores: it has them, or no place for them; use {scored}")
        if not 1 <= self.options.negatives <= MAX_NEGATIVE_COLUMNS:
            raise InputError(f"--negatives is {self.options.negatives}: use 1 to {MAX_NEGATIVE_COLUMNS}")
        if self.since is not None and self.since < 0:
            raise InputError(f"--since is {self.since}: changes count from 1; use 0 for all of them")
        if self.since is not None and self.splits and self.splits.group_by != BY_QUERY:
            raise InputError(
                "an increment cannot be split by groups that later queries may join: use --group-by query, or export"
                " all without --since"
            )

    def selection(self) -> dict[str, Any]:
        """What was asked for, as the manifest says it: equal for exports that go on from each other."""
        by = {} if self.by == BY_PASSAGE else {"by": self.by}
        return {
            **by,
            "judge": self.judge,
            "where": " ".join(self.where.split()),
            "overrides": self.people,
            "splits": self.splits.describe() if self.splits else None,
            "options": self._options(),
        }

    def describe_rules(self) -> dict[str, Any] | None:
        """The rules of mining, where the format is mined."""
        mined = self.format.use == EXAMPLES_USE
        if not mined and not self.format.verdicts:
            return None
        rules = {**asdict(self.rules), "relevant_grades": dict(sorted(self.rules.relevant_grades.items()))}
        return {**rules, "round": asdict(self.limits)} if mined else rules

    def _options(self) -> dict[str, Any]:
        """The options that reach this format's bytes."""
        known: Mapping[str, tuple[str, ...]] = {
            "run": ("system",),
            "st-ntuple": ("negatives",),
            "hf": ("license", "name"),
        }
        scores = {"scores": True} if self.options.scores else {}
        return {name: getattr(self.options, name) for name in known.get(self.kind, ())} | scores


def request_of(
    settings: SinkSettings,
    *,
    kind: str,
    collection: str,
    split: str | None,
    group_by: str,
    negatives: int,
    licence: str,
    system: str = "",
    name: str = "",
    scores: bool = False,
    **fields: Any,
) -> Request:
    """The request that the options of a command make; `fields` are those of `Request` as they are."""
    return Request(
        collection,
        kind,
        splits=parse_splits(split, group_by) if split else None,
        rules=settings.rules,
        limits=settings.round_limits,
        report=read_report(settings.qualification),
        options=Options(negatives=negatives, system=system, license=licence, name=name, scores=scores),
        **fields,
    )
