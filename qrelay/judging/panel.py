"""Several judges over the same pairs: their labels live side by side, each under its own identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from qrelay.errors import QrelayError
from qrelay.judging.cache import JudgmentCache
from qrelay.judging.judge import Judge
from qrelay.runtime.stage import Info
from qrelay.types import CandidateSet, JudgedSet


class Panel:
    """The judges, asked one after the other: engines on one machine would only take each other's cores.

    A set's judgments stand judge by judge, each judge's in candidate order.
    """

    def __init__(self, judges: Mapping[str, Judge], cache: JudgmentCache) -> None:
        """`judges` by name; `cache` is what they share, closed with the panel."""
        self._judges = dict(judges)
        self._cache = cache

    @property
    def judges(self) -> Mapping[str, Judge]:
        """The judges by name."""
        return self._judges

    def metadata(self, hashes: Collection[str]) -> dict[str, str]:
        """What those of the judges that have one of these hashes show of a passage's metadata, as
        `StrategySpec.metadata`."""
        used = [judge for judge in self._judges.values() if not set(judge.hashes).isdisjoint(hashes)]
        return dict.fromkeys(sorted(field for judge in used for field in judge.strategy.spec.metadata), "")

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set with every judge's judgments of it."""
        first, *others = [await judge.judge(sets) for judge in self._judges.values()]
        for answers in others:
            first = [_joined(one, other) for one, other in zip(first, answers, strict=True)]
        return first

    def info(self) -> Info:
        """Every judge's identity, field by field."""
        infos = {name: judge.info() for name, judge in self._judges.items()}
        if len(infos) == 1:
            return next(iter(infos.values()))
        return Info(
            models={f"judge {name}": info.models["judge"] for name, info in infos.items()},
            details={f"{name}: {key}": value for name, info in infos.items() for key, value in info.details.items()},
        )

    def close(self) -> None:
        """Free the engines and the cache."""
        for judge in self._judges.values():
            judge.close()
        self._cache.close()


def _joined(one: JudgedSet | QrelayError, other: JudgedSet | QrelayError) -> JudgedSet | QrelayError:
    if isinstance(one, QrelayError):
        return one
    if isinstance(other, QrelayError):
        return other
    return replace(one, judgments=one.judgments + other.judgments)
