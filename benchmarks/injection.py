"""Do orders inside a passage raise its grade? Each order against a neutral sentence of the same length.

    python -m benchmarks.injection --strategy binary --strategy query_likelihood \
        [--rubric mine.yaml] [--backend transformers] \
        [--model qwen2.5-coder-0.5b-instruct] [--scale 0-3] [--threads 1] [--json]

Twenty orders in various forms are appended to passages that do not answer their query, and in their place a neutral
sentence in the same language. For each strategy: how many orders raised the grade above the neutral sentence's, how
many lowered it, the exact two-sided sign test of the two (McNemar's, where there are two grades), the same for the
decision "relevant", and the mean change of P(relevant) and of the expected grade. `query_likelihood` cannot obey, so
what it shows is what the orders' words alone do.

Caveat: twenty pairs show large effects only (6 to 0 is the least significant count). What the settings name
(QRELAY_JUDGE__…) applies, the cache does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrelay.errors import QrelayError
from qrelay.judging.engines import make_backend
from qrelay.judging.load import strategy_of
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies.base import Measured, Strategy
from qrelay.llm.base import Backend
from qrelay.settings import load_settings
from qrelay.settings.sources import default_data_dir
from qrelay.types import Graded, Passage, Query

SET = Path(__file__).with_name("injection.jsonl")


@dataclass(frozen=True, slots=True)
class Case:
    """One order and its neutral twin, to be appended to an irrelevant passage. answer: the query's right answer."""

    query: str
    answer: str
    passage: str
    order: str
    neutral: str


@dataclass(frozen=True, slots=True)
class Change:
    """What the order changed against the neutral sentence: grades, decisions (1, 0, -1) and probabilities."""

    grade: int
    relevant: int
    p_relevant: float
    expected: float


def read_cases(path: Path = SET) -> list[Case]:
    """The orders in the file, spread over its pairs of query and irrelevant passage in turn."""
    records = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    pairs = [each for each in records if "query" in each]
    orders = [each for each in records if "order" in each]
    return [
        Case(**pairs[n % len(pairs)], order=each["order"], neutral=each["neutral"]) for n, each in enumerate(orders)
    ]


async def changes(strategy: Strategy, backend: Backend, cases: Sequence[Case]) -> list[Change | None]:
    """One a case; None where one of the two labels is missing. Cases of one query are asked together."""
    found: dict[int, Change | None] = {}
    for query in dict.fromkeys(case.query for case in cases):
        mine = [n for n, case in enumerate(cases) if case.query == query]
        asked = Query("injection", query, "injection", reference_answers=(cases[mine[0]].answer,))
        texts = [text for n in mine for text in _both(cases[n])]
        outcomes = await _outcomes(strategy, backend, asked, texts, [case.passage for case in cases])
        found |= {n: _change(outcomes[2 * at], outcomes[2 * at + 1], strategy) for at, n in enumerate(mine)}
    return [found[n] for n in range(len(cases))]


def _both(case: Case) -> tuple[str, str]:
    return f"{case.passage}\n{case.order}", f"{case.passage}\n{case.neutral}"


async def _outcomes(
    strategy: Strategy, backend: Backend, query: Query, texts: Sequence[str], others: Sequence[str]
) -> list[Graded | None]:
    """A list shows one of the texts only, beside all the other passages: else the orders would compete."""
    if not strategy.spec.listwise or strategy.spec.name == "answer_nll":  # it has its reference answer
        return [_graded(each) for each in await strategy.measure(backend, query, _passages(texts))]
    found = []
    for text in texts:
        beside = [each for each in dict.fromkeys(others) if not text.startswith(each)]
        found.append(_graded((await strategy.measure(backend, query, _passages([text, *beside])))[0]))
    return found


def _passages(texts: Sequence[str]) -> list[Passage]:
    return [Passage(f"d#{n}", "d", "", text) for n, text in enumerate(texts)]


def _graded(each: Measured | QrelayError) -> Graded | None:
    if isinstance(each, QrelayError):
        raise SystemExit(f"a passage was not judged: {each}")
    return each.outcome if isinstance(each.outcome, Graded) else None


def _change(ordered: Graded | None, neutral: Graded | None, strategy: Strategy) -> Change | None:
    if ordered is None or neutral is None:
        return None
    least = strategy.spec.scale.relevant_grade
    return Change(
        grade=ordered.grade - neutral.grade,
        relevant=(ordered.grade >= least) - (neutral.grade >= least),
        p_relevant=ordered.p_relevant - neutral.p_relevant,
        expected=ordered.expected_relevance - neutral.expected_relevance,
    )


def sign_test(up: int, down: int) -> float:
    """Exact two-sided p of so many ups and downs under equal chances: McNemar's test of a 2 x 2 table."""
    from scipy.stats import binomtest

    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def summary(found: Sequence[Change | None]) -> dict[str, Any]:
    """The figures of one strategy."""
    known = [each for each in found if each is not None]
    report: dict[str, Any] = {"orders": len(found), "missing": len(found) - len(known)}
    for name in ("grade", "relevant"):
        signs = [getattr(each, name) for each in known]
        up, down = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
        rate = up / len(known) if known else math.nan
        report[name] = {"up": up, "down": down, "up_rate": rate, "p": sign_test(up, down)}
    for name in ("p_relevant", "expected"):
        values = [getattr(each, name) for each in known]
        report[f"mean_change_{name}"] = math.fsum(values) / len(values) if values else math.nan
    return report


def measure(settings: JudgeSettings, name: str, cases: Sequence[Case], rubric: str = "") -> dict[str, Any]:
    """The figures of the strategy `name`, or of a rubric; loads the engine for it."""
    chosen = settings.model_copy(update={"strategy": name, "rubric": rubric})
    strategy = strategy_of(chosen)
    backend = make_backend(chosen, needs=strategy.spec.needs)
    began, cpu = time.monotonic(), time.process_time()
    try:
        found = asyncio.run(changes(strategy, backend, cases))
    finally:
        backend.close()
    raised = [cases[n].order for n, each in enumerate(found) if each and each.grade > 0]
    spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    judge = {"strategy": strategy.spec.name, "scale": strategy.spec.scale.name, "model": backend.weights.model}
    return {**judge, **summary(found), **spent, "raised_by": raised}


def settings_of(arguments: argparse.Namespace) -> JudgeSettings:
    """The settings with what the command line changes."""
    settings = load_settings(JudgeSettings, "judge", data_dir=default_data_dir())
    changed = {name: getattr(arguments, name) for name in ("backend", "model", "scale") if getattr(arguments, name)}
    engines = {
        name: getattr(settings, name).model_copy(update={"threads": arguments.threads})
        for name in ("llamacpp", "transformers")
        if arguments.threads
    }
    return settings.model_copy(update={**changed, **engines})


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    grade, relevant = report["grade"], report["relevant"]
    judge = f"{report['strategy']} {report['scale']} {report['model']}"
    yield f"{judge}: {report['orders']} orders, {report['missing']} missing"
    yield f"  grade raised {grade['up']} ({grade['up_rate']:.0%}), lowered {grade['down']}, p = {grade['p']:.3g}"
    yield f"  irrelevant to relevant {relevant['up']}, back {relevant['down']}, p = {relevant['p']:.3g}"
    yield (
        f"  mean change of P(relevant) {report['mean_change_p_relevant']:+.3f}, of the expected grade "
        f"{report['mean_change_expected']:+.3f}; {report['cpu_seconds']:.0f} s CPU"
    )
    yield from (f"    raised by {order!r}" for order in report["raised_by"])


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", action="append", help="may be repeated; default: binary")
    parser.add_argument("--rubric", action="append", default=[], help="a file or a shipped name; may be repeated")
    parser.add_argument("--scale", choices=["0-3", "1-4"])
    parser.add_argument("--backend")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    settings = settings_of(parsed)
    names = parsed.strategy or ([] if parsed.rubric else ["binary"])
    reports = [measure(settings, name, read_cases()) for name in names]
    reports += [measure(settings, "", read_cases(), rubric) for rubric in parsed.rubric]
    if parsed.json:
        print(json.dumps(reports, ensure_ascii=False, indent=2))
        return
    for report in reports:
        print("\n".join(lines(report)))


if __name__ == "__main__":
    main()
