"""The page: one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.judging.report.warn import bounds, known, plain_warnings

USES: Final = {
    "positives": "its relevant labels as training positives",
    "negatives": "its not relevant labels as hard negatives",
    "gate": "comparing models before promotion",
}
VERDICTS: Final = {
    "qualified": "qualified",
    "calibrated_only": "calibrated only",
    "not_qualified": "not qualified",
    "unknown": "unknown",
}
COLUMNS: Final = (
    ("system", ""),
    ("AUC", "P(a relevant pair scores above another); 95% interval over queries"),
    ("within query", "mean AUC of queries that have both kinds of pair"),
    ("κ binary", "Cohen's kappa, relevant or not; 95% interval over queries"),
    ("κ grades", "Cohen's kappa on grades, unweighted"),
    ("κ quadratic", "Cohen's kappa on grades, quadratic weights"),
    ("alpha", "Krippendorff's alpha, ordinal"),
    ("ECE", "expected calibration error, before → after calibration"),
    ("Brier", "mean squared error of probabilities, before → after calibration"),
    ("missing", "pairs without a label"),
    ("tokens", "prompt tokens read"),
)
DASH: Final = "\N{EN DASH}"

_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.35rem 0.7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
small { color: #555; } td small { white-space: nowrap; } tr.focus { background: #eef4fa; }
.verdict { font-weight: 600; } .qualified { color: #17602b; } .calibrated_only { color: #7a4d00; }
.not_qualified { color: #9b1c1c; } .unknown { color: #444; }
.warnings { border-left: 4px solid #b7791f; padding: 0.2rem 1rem; background: #fffaf0; }
.warnings h2 { margin-top: 0.5rem; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; } img { max-width: 100%; height: auto; }
code { overflow-wrap: anywhere; } dt { font-weight: 600; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ data.n }} pairs of {{ data.queries }} queries were graded by people; {{ data.relevant }} are relevant (grade
{{ data.relevant_from }} or more). SHA-256 of the graded pairs: <code>{{ data.sha256 }}</code></p>
{% if warnings %}<section class="warnings"><h2>Before you believe this</h2>
<ul>{% for each in warnings %}<li>{{ each }}</li>{% endfor %}</ul></section>{% endif %}
{% if verdicts %}<h2>What each judge may be used for</h2>
<div class="wide"><table class="words">
<tr><th scope="col">judge</th>{% for use, what in uses.items() %}
<th scope="col">{{ use }}<br><small>{{ what }}</small></th>{% endfor %}</tr>
{% for name, cells in verdicts %}<tr{% if name == focus %} class="focus"{% endif %}><td>{{ name }}</td>
{% for cell in cells %}<td><span class="verdict {{ cell.kind }}">{{ cell.word }}</span><br>{{ cell.reason }}
{% if cell.numbers %}<details><summary>numbers</summary>{% for key, value in cell.numbers %}{{ key }}: {{ value }}<br>
{% endfor %}</details>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endif %}
<h2>Systems</h2>
<div class="wide"><table>
<tr>{% for name, what in columns %}<th scope="col" title="{{ what }}">{{ name }}</th>{% endfor %}</tr>
{% for name, cells in systems %}<tr{% if name == focus %} class="focus"{% endif %}><td>{{ name }}</td>
{% for figure, beside in cells %}<td>{{ figure }}{% if beside %}<br><small>{{ beside }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</table></div>
<h2>{{ focus }}</h2>
{% for title, png in images %}<figure><img src="data:image/png;base64,{{ png }}" alt="{{ title }} of {{ focus }}">
</figure>{% endfor %}
{% if comparisons %}<h2>Comparisons</h2>
<p>Difference of AUC, both on the same resamples of queries. p: one-sided, of the first being no better.</p>
<div class="wide"><table>
<tr><th scope="col">systems</th><th scope="col">difference</th><th scope="col">95% interval</th><th scope="col">p</th>
</tr>
{% for each in comparisons %}<tr><td>{{ each[0] }}</td><td>{{ each[1] }}</td><td>{{ each[2] }}</td><td>{{ each[3] }}
</td></tr>
{% endfor %}</table></div>{% endif %}
<h2>What each map reads</h2>
<div class="wide"><table class="words">
<tr><th scope="col">system</th><th scope="col">inputs</th><th scope="col">reads retrieval scores</th></tr>
{% for name, inputs, stages in inputs %}<tr><td>{{ name }}</td><td>{{ inputs }}</td><td>{{ stages }}</td></tr>
{% endfor %}</table></div>
<p>All were measured on the graded pairs <code>{{ data.sha256 }}</code>.</p>
<h2>How to read the columns</h2>
<dl>{% for name, what in columns if what %}<dt>{{ name }}</dt><dd>{{ what }}</dd>{% endfor %}</dl>
{% if notes %}<h2>Notes</h2><ul>{% for each in notes %}<li>{{ each }}</li>{% endfor %}</ul>{% endif %}
</body>
</html>
"""


def render(report: Mapping[str, Any], focus: str, images: Mapping[str, bytes]) -> str:
    """The page of a report; images: title -> PNG, inlined. All texts are escaped."""
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE)
    data = report.get("data", {})
    return template.render(
        title=report.get("title") or "Report",
        data={key: _text(data.get(key)) for key in ("n", "queries", "relevant", "relevant_from", "sha256")},
        focus=focus,
        warnings=plain_warnings(report, focus),
        uses=USES,
        verdicts=[(name, [_verdict(uses.get(use)) for use in USES]) for name, uses in _items(report, "verdicts")],
        columns=COLUMNS,
        systems=[(name, _cells(system)) for name, system in _items(report, "systems")],
        images=[(title, base64.b64encode(png).decode()) for title, png in images.items()],
        comparisons=[_comparison(each) for each in report.get("comparisons") or ()],
        inputs=[(name, *_inputs(system)) for name, system in _items(report, "systems")],
        notes=report.get("notes") or (),
    )


def _items(report: Mapping[str, Any], part: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return list((report.get(part) or {}).items())


def _cells(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(figure, what stands below it) of each column but the first."""
    queries = system.get("auc_within_query_n")
    return [
        (_number(system.get("auc")), _interval(bounds(system, "auc"))),
        (_number(system.get("auc_within_query")), f"{queries} queries" if queries is not None else ""),
        (_number(system.get("kappa_binary")), _interval(bounds(system, "kappa_binary"))),
        (_number(system.get("kappa_four_point")), ""),
        (_number(system.get("kappa_graded")), ""),
        (_number(system.get("alpha")), ""),
        (_change(system, "ece"), ""),
        (_change(system, "brier"), ""),
        (_text(system.get("missing")), ""),
        (_text(system.get("tokens")), ""),
    ]


def _verdict(found: Mapping[str, Any] | None) -> dict[str, Any]:
    found = found or {"verdict": "unknown", "reason": "not decided"}
    kind = found.get("verdict") if found.get("verdict") in VERDICTS else "unknown"
    numbers = [(key, _value(value)) for key, value in (found.get("numbers") or {}).items()]
    return {"kind": kind, "word": VERDICTS[str(kind)], "reason": found.get("reason") or "", "numbers": numbers}


def _comparison(each: Mapping[str, Any]) -> tuple[str, str, str, str]:
    p = each.get("p")
    signed = f"{each['difference']:+.3f}" if known(each.get("difference")) else DASH
    shown = "" if not known(p) else "< 0.001" if float(p or 0) < 0.001 else f"{p:.3f}"
    return (
        f"{each['a']} against {each['b']}",
        signed,
        _interval(each.get("ci") or (None, None)) or DASH,
        shown or DASH,
    )


def _inputs(system: Mapping[str, Any]) -> tuple[str, str]:
    inputs = ", ".join(str(each) for each in system.get("inputs") or ()) or DASH
    stages = system.get("uses_stage_scores")
    return inputs, DASH if stages is None else "yes" if stages else "no"


def _number(value: Any) -> str:
    return f"{value:.3f}" if known(value) else DASH


def _text(value: Any) -> str:
    """Whole numbers with thousands apart; texts as they are."""
    if value is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else str(value)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    return _number(value) if isinstance(value, float) else _text(value)


def _interval(found: Sequence[Any]) -> str:
    low, high = found
    return f"{low:.3f} to {high:.3f}" if known(low) and known(high) else ""


def _change(system: Mapping[str, Any], figure: str) -> str:
    before, after = _number(system.get(f"{figure}_before")), _number(system.get(f"{figure}_after"))
    return DASH if before == after == DASH else f"{before} → {after}"
