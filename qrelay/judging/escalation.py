"""Which pairs of a cascade go up, as pure functions: for the cascade itself, and to see beforehand what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qrelay.errors import InputError
from qrelay.identity import digest
from qrelay.types import CandidateSet


def chance_wrong(p: float, relevant: bool) -> float:
    """The probability that a decision is wrong: 1 - p where it says relevant, p where it does not."""
    return 1.0 - p if relevant else p


def in_audit(key: str, share: float) -> bool:
    """Whether the pair of this key belongs to the audited share, 0 to 1, of all keys."""
    return int(digest("audit", key)[:13], 16) < share * 16**13


def marked_only(candidate_set: CandidateSet, passage_ids: set[str]) -> CandidateSet:
    """The set with exactly these passages marked for the judge."""
    marked = [replace(c, sampled=c.passage.passage_id in passage_ids) for c in candidate_set.candidates]
    return replace(candidate_set, candidates=tuple(marked))


@dataclass(frozen=True, slots=True)
class CascadeOutcome:
    """What a cascade would do to n pairs. decisions, escalated, audited: [n]; escalated pairs include audited ones
    and have the large judge's decision. agreement: share of all decisions that are the large judge's; of the audited
    pairs' small decisions: audit_agreement, None where none was audited."""

    decisions: tuple[bool, ...]
    escalated: tuple[bool, ...]
    audited: tuple[bool, ...]
    share_escalated: float
    agreement: float
    audit_agreement: float | None


def simulate(
    p_small: Sequence[float],
    decision_small: Sequence[bool],
    decision_large: Sequence[bool],
    max_error: float,
    audit: float,
    keys: Sequence[str],
) -> CascadeOutcome:
    """The cascade's decisions on pairs that both judges have decided, without drift and without a budget. All columns
    [n]; p_small: calibrated P(relevant), nan where the label is missing (such a pair goes up).

    Raises:
        InputError: no pairs.
    """
    if not len(keys):
        raise InputError("there are no pairs to simulate a cascade on")
    small, large = [bool(each) for each in decision_small], [bool(each) for each in decision_large]
    sure = [chance_wrong(float(p), said) <= max_error for p, said in zip(p_small, small, strict=True)]
    audited = tuple(each and in_audit(key, audit) for each, key in zip(sure, keys, strict=True))
    escalated = tuple(not each or checked for each, checked in zip(sure, audited, strict=True))
    decisions = tuple(theirs if up else ours for ours, theirs, up in zip(small, large, escalated, strict=True))
    checked = [ours == theirs for ours, theirs, each in zip(small, large, audited, strict=True) if each]
    kept = [ours == theirs for ours, theirs in zip(decisions, large, strict=True)]
    n = len(small)
    return CascadeOutcome(
        decisions,
        escalated,
        audited,
        sum(escalated) / n,
        sum(kept) / n,
        sum(checked) / len(checked) if checked else None,
    )
