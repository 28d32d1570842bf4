"""The audit as a page: one HTML file that needs no network and no script. All texts are escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from qrelay.labels.audit.breakdown import COLUMNS
from qrelay.labels.audit.figures import FIGURES, JUDGED_AT

TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Label audit of {{ r.collection }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.35rem 0.7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
td:first-child code { white-space: nowrap; overflow-wrap: normal; }
small { color: #555; } .none { color: #7a4d00; }
.passed { color: #17602b; font-weight: 600; } .failed { color: #9b1c1c; font-weight: 600; }
.gate { border-left: 4px solid #888; padding: 0.2rem 1rem; background: #f7f7f7; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; } img { max-width: 100%; height: auto; }
figure img { width: 36rem; }
code { overflow-wrap: anywhere; }
</style>
</head>
<body>
{% macro table(head, rows, words=false) %}<div class="wide"><table{% if words %} class="words"{% endif %}>
<tr>{% for each in head %}<th scope="col">{{ each }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for each in row %}<td>{{ each }}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endmacro %}
<h1>Label audit of {{ r.collection }}</h1>
<p>{{ r.ledger.queries | text }} queries, {{ r.ledger.judged_pairs | text }} judged pairs,
{{ r.ledger.judgments | text }} measurements, up to change {{ r.ledger.change_no }} of the ledger. Second labels:
{{ second }}.</p>
{% if r.gate.conditions %}<section class="gate"><h2>Gate: <span class="{{ 'passed' if r.gate.passed else 'failed' }}">
{{- 'passed' if r.gate.passed else 'failed' }}</span></h2>
<p>It fails on {{ r.gate.conditions | join(', ') }}.</p>
{% if r.gate.violations %}<ul>{% for each in r.gate.violations %}<li><strong>{{ each.condition }}</strong>:
{% if each.value is none %}not measured: {{ each.why }}{% else %}{{ each.value | text }}
{{- ',' if interval(each) }}{{ interval(each) }}{% endif %}</li>{% endfor %}</ul>{% endif %}</section>{% endif %}
<h2>Figures</h2>
<div class="wide"><table class="words">
<tr><th scope="col">figure</th><th scope="col">value</th><th scope="col">95% interval</th><th scope="col">n</th>
<th scope="col">what it is</th></tr>
{% for name, each in r.figures.items() %}<tr><td><code>{{ name }}</code></td>
{% if each.value is none %}<td colspan="3" class="none">not measured: {{ each.why }}</td>
{% else %}<td>{{ each.value | text }}</td><td>{{ interval(each) or dash }}</td><td>{{ each.n | text }}</td>{% endif %}
<td>{{ meaning[name] }}</td></tr>
{% endfor %}</table></div>
{% for title, png in images %}<figure><img src="data:image/png;base64,{{ png }}" alt="{{ title }}">
</figure>{% endfor %}
<h2>False negatives</h2>
<p>Of {{ fn.population | text }} negatives {{ fn.sampled | text }} were sampled
{%- if fn.gone %} ({{ fn.gone }} more of the sample are negatives no longer){% endif %};
{{ fn.measured | text }} have a second label, which calls
{{ fn.false | text }} of them relevant.</p>
{% if fn.by_reason %}{{ table(('reason', 'rate', '95% interval', 'n'), by_reason) }}{% endif %}
{% if fn.examples %}<h3>Found relevant</h3>
{{ table(('query', 'passage', 'reason', 'grade', 'second grade', 'by', 'text'), false_examples, true) }}{% endif %}
<h2>Conflicts</h2>
{{ table(('texts', 'with several labels', 'conflicts', 'exported', 'between judges', 'on relevance'), conflicts) }}
{% if c.conflicts.examples %}<h3>Examples</h3>
{{ table(('query', 'passage', 'judge', 'scale', 'grade', 'exported'), conflict_examples, true) }}{% endif %}
<h2>Near-duplicates</h2>
<p>Within queries, {{ near.pairs | text }} pairs of labelled passages are near-duplicates (similarity from
{{ near.threshold }}): {{ near.positive_pairs | text }} of two positives, {{ near.negative_pairs | text }} of two
negatives; in {{ near.conflicts | text }} one is relevant and one is not. Of
{{ near.training.passages | text }} distinct training passages
{{ near.training.near_duplicates | text }} are near-duplicates of another one
{%- if not near.training.complete %}; there are more passages than were compared{% endif %}.</p>
{% if near.examples %}{{ table(('query', 'passages', 'grades', 'similarity'), near_examples, true) }}{% endif %}
<h2>Leakage</h2>
{% if c.leakage %}{{ table(('', 'in the evaluation set', 'leaked', 'same text', 'nearly'), leakage) }}
{% if c.leakage.examples %}{{ table(('kind', 'evaluation id', 'id here', 'text'), leak_examples, true) }}{% endif %}
{% else %}<p class="none">Not measured: no evaluation set was given.</p>{% endif %}
<h2>Drift</h2>
{{ table(('judge', 'period from', 'graded', 'grades', 'stability index', 'p'), drift, true) }}
<h2>Judged at k</h2>
{{ table(['system', 'queries'] + ks, judged) }}
<h2>Judges</h2>
{{ table(('judge', 'model', 'strategy', 'scale', 'audited', 'measurements', 'missing', 'cached'), judges, true) }}
<h2>Missing judgments</h2>
{% if c.missing.by_reason %}{{ table(('reason', 'pairs'), c.missing.by_reason.items()) }}
{% else %}<p>None of {{ c.missing.pairs | text }} pairs.</p>{% endif %}
{% for dimension, groups in sources %}<h2>By {{ dimension }}</h2>
{{ table([dimension] + columns, groups) }}{% endfor %}
</body>
</html>
"""
DASH: Final = "\N{EN DASH}"


def render(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page of a report of `audit.audit`; images: title -> PNG, inlined."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["text"] = text
    checks = report["checks"]
    return environment.from_string(TEMPLATE).render(
        r=report,
        c=checks,
        fn=checks["false_negatives"],
        near=checks["near_duplicates"],
        second=_second(report),
        interval=interval,
        dash=DASH,
        meaning=FIGURES,
        images=[(title, base64.b64encode(png).decode()) for title, png in images.items()],
        ks=[f"judged@{k}" for k in JUDGED_AT],
        columns=list(COLUMNS),
        **_tables(report, checks),
    )


def text(value: Any) -> str:
    """A number as people read it: thousands apart, up to four digits of a fraction; a dash for None."""
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def interval(figure: Mapping[str, Any]) -> str:
    """The bounds of a figure, empty where it has none."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f" {text(figure['low'])} to {text(figure['high'])}"


def _second(report: Mapping[str, Any]) -> str:
    auditor = f"judge {report['auditor'][:12]}" if report["auditor"] else ""
    people = "people's overrides" if report["overrides"] else ""
    return " and ".join(filter(None, (auditor, people))) or "none"


def _tables(report: Mapping[str, Any], checks: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of every table."""
    leaks = checks["leakage"] or {"examples": []}
    return {
        **_tables_of_examples(checks),
        "leakage": [(kind, *map(text, leaks[kind].values())) for kind in ("queries", "passages") if kind in leaks],
        "leak_examples": _rows(leaks["examples"], ("kind", "evaluation_id", "id", "text")),
        "drift": _drift(checks["drift"]),
        "judged": [(name, *map(text, row.values())) for name, row in checks["judged_at"].items()],
        "judges": [(hashed[:12], *_judge(row)) for hashed, row in report["judges"].items()],
        "sources": [
            (dimension.replace("_", " "), [(name[:60], *map(text, row.values())) for name, row in groups.items()])
            for dimension, groups in checks["sources"]["by"].items()
        ],
    }


def _tables_of_examples(checks: Mapping[str, Any]) -> dict[str, Any]:
    false, conflicts, near = checks["false_negatives"], checks["conflicts"], checks["near_duplicates"]
    return {
        "by_reason": [
            (name, text(row["value"]), interval(row), text(row["n"])) for name, row in false["by_reason"].items()
        ],
        "false_examples": _rows(
            false["examples"], ("query", "passage_id", "reason", "grade", "second_grade", "by", "text")
        ),
        "conflicts": [[text(value) for name, value in conflicts.items() if name != "examples"]],
        "conflict_examples": [
            row
            for each in conflicts["examples"]
            for row in _rows(each["labels"], ("query_id", "passage_id", "judge", "scale", "grade", "exported"))
        ],
        "near_examples": [
            (each["query_id"], ", ".join(each["passages"]), ", ".join(map(str, each["grades"])), each["similarity"])
            for each in near["examples"]
        ],
    }


def _judge(row: Mapping[str, Any]) -> tuple[str, ...]:
    words = (row["model"], row["strategy"], row["scale"], "yes" if row["audited"] else "no")
    return (*words, *(text(row[name]) for name in ("measurements", "missing", "cached")))


def _rows(examples: Any, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(text(each[name]) for name in names) for each in examples]


def _drift(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            hashed[:12],
            found["periods"][row["period"]][:16].replace("T", " "),
            text(row["graded"]),
            ", ".join(f"{grade}: {count:,}" for grade, count in row["grades"].items()),
            text(row["psi"]),
            text(row["p_value"]),
        )
        for hashed, periods in found["judges"].items()
        for row in periods
    ]
