"""A calibration map: from labels, and scores where allowed, to P(relevant) as people see it.

Fitted by `qrelay judge calibrate` on pairs that people graded, stored as JSON with the hash of those pairs, and
applied here. With one input it is isotonic, with several a logistic model over them. It names its inputs: a map that
reads the retrieval systems' scores leans on the student that its labels will train, and its labels say so.

    p        = model(features)                      P(grade >= relevant_from)
    grade    : relevant where p reaches `threshold`; the finer grades by `cuts` on p
    P(g >= k): one isotonic map of p for each grade k, made monotone in k
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.identity import digest
from qrelay.judging.domain import FIGURES, Domain
from qrelay.parsing import json_document
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.types import FUSED, SYSTEMS, Candidate, Graded, JudgeIdentity, Missing, retrieval_scores

FORMAT: Final = 1
BEHIND_BEST: Final = "/best"
_LOG_ODDS_LIMIT: Final = 12.0
Features = list[float]


def raw_score(outcome: Graded) -> float:
    """A label as one number, more is more relevant: the gain in nats a token where a likelihood was measured,
    log-odds where there are two grades (held within ±12), else the expected grade."""
    utility = outcome.utility
    if utility and utility.nll is not None and utility.nll_without_passage is not None:
        return utility.nll_without_passage - utility.nll
    if len(outcome.probabilities) == 2:
        p = min(max(outcome.p_relevant, 1e-9), 1 - 1e-9)
        return max(-_LOG_ODDS_LIMIT, min(_LOG_ODDS_LIMIT, math.log(p / (1 - p))))
    return outcome.expected_relevance


@dataclass(frozen=True, slots=True)
class MapInput:
    """One input: a judge's label ("judge", by its name, with the hash of its identity) or a retrieval system's
    score ("stage", by the system's name). behind_best: not the score itself but how far it lies behind the query's
    best, over the passages that were judged together; 0 for the best, below it for the others."""

    kind: Literal["judge", "stage"]
    name: str
    judge_hash: str = ""
    behind_best: bool = False

    @property
    def label(self) -> str:
        """Its name in reports: "dense", "dense/best"."""
        return self.name + BEHIND_BEST if self.behind_best else self.name


@dataclass(frozen=True, slots=True)
class FittedOn:
    """The pairs a map was fitted on. relevant_from: the least grade that counted as relevant."""

    sha256: str
    pairs: int
    queries: int
    relevant: int
    relevant_from: int


@dataclass(frozen=True)
class CalibrationMap:
    """See the module. `cuts[i]` is the least p of grade `min_grade + i + 1`; `cumulative[i]` its isotonic map.
    `metrics`: cross-validated figures, as the report gives them; `domain`: what its queries looked like."""

    inputs: tuple[MapInput, ...]
    model: Isotonic | Logistic
    scale: str
    min_grade: int
    cuts: tuple[float, ...]
    cumulative: tuple[Isotonic, ...]
    threshold: float
    fitted_on: FittedOn
    metrics: Mapping[str, Any]
    domain: Domain = field(default_factory=Domain)

    @property
    def uses_stage_scores(self) -> bool:
        """Whether its labels lean on the retrieval systems' scores."""
        return any(each.kind == "stage" for each in self.inputs)

    @property
    def listwise(self) -> bool:
        """Whether a label depends on the other passages of its list."""
        return any(each.behind_best for each in self.inputs)

    @cached_property
    def hash(self) -> str:
        """sha256 of everything that decides a label; metrics and domain do not."""
        decides = {key: value for key, value in self.as_json().items() if key not in ("metrics", "domain")}
        return digest(json.dumps(decides, sort_keys=True))

    @property
    def identity(self) -> JudgeIdentity:
        """Who its labels come from."""
        names = ",".join(each.label for each in self.inputs)
        return JudgeIdentity(
            model="fused",
            revision=self.hash[:16],
            quantisation="none",
            prompt_hash=self.hash,
            strategy=FUSED,
            scale=self.scale,
            decoding=f"inputs={names};{retrieval_scores(self.uses_stage_scores)}",
        )

    def features(self, pairs: Sequence[tuple[Mapping[str, Graded | Missing], Candidate]]) -> list[Features | Missing]:
        """One number an input for each passage of a list: pairs are its labels by judge name, and the candidate. nan
        for a score that the candidate lacks; a label that is missing makes the whole missing, for the same reason."""
        rows = [self._scores(outcomes, candidate) for outcomes, candidate in pairs]
        known = [row for row in rows if not isinstance(row, Missing)]
        for column, each in enumerate(self.inputs):
            if each.behind_best and known:
                best = max((row[column] for row in known if row[column] == row[column]), default=math.nan)
                for row in known:
                    row[column] -= best
        return rows

    def _scores(self, outcomes: Mapping[str, Graded | Missing], candidate: Candidate) -> Features | Missing:
        found = []
        for each in self.inputs:
            if each.kind == "stage":
                score = candidate.score(each.name)
                found.append(math.nan if score is None or score.score is None else score.score)
                continue
            outcome = outcomes.get(each.name)
            if outcome is None:
                return Missing("error", f"the judge {each.name}, which the calibration needs, gave no label")
            if isinstance(outcome, Missing):
                return outcome
            found.append(raw_score(outcome))
        if len(found) == 1 and math.isnan(found[0]):
            return Missing("error", f"the candidate has no {self.inputs[0].name} score, the calibration's only input")
        return found

    def probability(self, features: Sequence[Features]) -> list[float]:
        """P(relevant) of each row of features."""
        rows = [row[0] for row in features] if isinstance(self.model, Isotonic) else features
        return [float(p) for p in self.model.predict(rows)] if features else []

    def graded(self, p: float) -> Graded:
        """The label of one P(relevant)."""
        at_least = self._at_least(p)
        probabilities = tuple(a - b for a, b in zip((1.0, *at_least), (*at_least, 0.0), strict=True))
        return Graded(
            grade=self.min_grade + sum(p >= cut for cut in self.cuts),
            min_grade=self.min_grade,
            probabilities=probabilities,
            expected_relevance=self.min_grade + math.fsum(at_least),
            entropy=-math.fsum(q * math.log(q) for q in probabilities if q > 0.0) or 0.0,
            p_relevant=p,
            calibration=self.hash,
        )

    def _at_least(self, p: float) -> tuple[float, ...]:
        """P(grade >= k) for every grade above the lowest, not rising; exactly p at the relevant grade."""
        relevant = self.fitted_on.relevant_from - self.min_grade - 1
        found = [p if i == relevant else float(each.predict([p])[0]) for i, each in enumerate(self.cumulative)]
        below = [max(p, value) for value in found[:relevant]]
        above = [min(p, value) for value in found[relevant + 1 :]]
        for i in range(len(below) - 1, 0, -1):
            below[i - 1] = max(below[i - 1], below[i])
        for i in range(1, len(above)):
            above[i] = min(above[i - 1], above[i])
        return (*below, p, *above)

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        kind = "isotonic" if isinstance(self.model, Isotonic) else "logistic"
        return {
            "inputs": [asdict(each) for each in self.inputs],
            "uses_stage_scores": self.uses_stage_scores,
            "model": {"kind": kind, **asdict(self.model)},
            "scale": self.scale,
            "min_grade": self.min_grade,
            "cuts": list(self.cuts),
            "cumulative": [asdict(each) for each in self.cumulative],
            "threshold": self.threshold,
            "fitted_on": asdict(self.fitted_on),
            "metrics": dict(self.metrics),
            "domain": asdict(self.domain),
        }


def save_maps(maps: Mapping[str, CalibrationMap], default: str, path: Path) -> None:
    """Write the maps by name, whole or not at all; `default` is the one that a path without a name means."""
    found = {name: {"sha256": each.hash, **each.as_json()} for name, each in maps.items()}
    text = json.dumps({"format": FORMAT, "default": default, "maps": found}, indent=2)
    write_atomic(path, text.encode() + b"\n")


def load_map(reference: str) -> CalibrationMap:
    """The map that `FILE` or `FILE#NAME` names. Raises ConfigError as `load_maps`, and for a name it has not."""
    path, _, name = reference.partition("#")
    found = _read(Path(path))
    maps = load_maps(Path(path))
    name = name or str(found["default"])
    if name not in maps:
        raise ConfigError(f"{path} holds no map {name!r}: it holds {', '.join(maps)}")
    return maps[name]


def load_maps(path: Path) -> dict[str, CalibrationMap]:
    """All maps of a file, by name.

    Raises:
        ConfigError: no such file, not maps of this format, or altered since they were fitted.
    """
    maps = {}
    for name, found in _read(path)["maps"].items():
        try:
            maps[name] = _from_json(found)
            altered = found.get("sha256") != maps[name].hash
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error
        if altered:
            raise ConfigError(f"the map {name} of {path} was altered after it was fitted: fit it again")
    return maps


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json_document(path.read_text("utf8"))
        if found["format"] != FORMAT or not isinstance(found["maps"], dict):
            raise ValueError(f"format {found['format']}")
        str(found["default"])
    except OSError as error:
        raise ConfigError(
            f"the calibration {path} cannot be read ({error.strerror}): fit one with `qrelay judge calibrate`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    return dict(found)


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} holds no calibration of format {FORMAT} ({type(error).__name__}: {error}): fit one with "
        "`qrelay judge calibrate`"
    )


def _from_json(found: dict[str, Any]) -> CalibrationMap:
    model = dict(found["model"])
    kind = model.pop("kind")
    unknown = [i["name"] for i in found["inputs"] if i["kind"] == "stage" and i["name"] not in SYSTEMS]
    if unknown:
        raise ValueError(f"unknown retrieval systems {', '.join(unknown)}")
    return CalibrationMap(
        inputs=tuple(MapInput(**each) for each in found["inputs"]),
        model=(Isotonic if kind == "isotonic" else Logistic)(**_tuples(model)),
        scale=found["scale"],
        min_grade=found["min_grade"],
        cuts=tuple(found["cuts"]),
        cumulative=tuple(Isotonic(**_tuples(each)) for each in found["cumulative"]),
        threshold=found["threshold"],
        fitted_on=FittedOn(**found["fitted_on"]),
        metrics=found.get("metrics", {}),
        domain=_domain(len(found["inputs"]), **found.get("domain", {})),
    )


def _domain(inputs: int, collection: str = "", profiles: Sequence[Sequence[float]] = ()) -> Domain:
    rows = tuple(tuple(float(value) for value in each) for each in profiles)
    if any(len(each) != inputs * len(FIGURES) for each in rows):
        raise ValueError("profiles of other inputs than the map's")
    return Domain(str(collection), rows)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
