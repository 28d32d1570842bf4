"""An evaluation as a page: one HTML file that needs no network. All texts are escaped; its one script, which sorts
the tables of queries, is the page's own and is named by its hash in the page's policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.training.evaluation.plots import differences_png, means_png
from qrelay.training.evaluation.reporting import comparisons_in, systems_in

ROWS: Final = 2000
"""Queries shown of each comparison, those that differ most first."""
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 78rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.86rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.35rem 0.7rem; text-align: right; vertical-align: top; }
.words { text-align: left; max-width: 22rem; overflow-wrap: anywhere; } small { color: #555; }
.sortable th { cursor: pointer; } .win { color: #17602b; } .loss { color: #9b1c1c; }
img { max-width: 100%; height: auto; }
"""
SCRIPT: Final = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => isNaN(value(a)) || isNaN(value(b))
      ? value(a).localeCompare(value(b)) : value(a) - value(b);
    const rows = [...table.tBodies[0].rows].sort((a, b) => down ? order(b, a) : order(a, b));
    table.tBodies[0].append(...rows);
  }));
}
"""
TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{{ script_hash }}'">
<title>Evaluation of {{ systems[-1].system }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>Evaluation of {{ systems | map(attribute="system") | join(", ") }}</h1>
<p>{{ facts.documents | count }} documents, {{ facts.queries | count }} queries with a relevant document (grade
{{ facts.relevant_from }} or more). Collection <code>{{ facts.collection_sha256[:16] }}</code>.
{% if facts.relevant_documents_absent %}{{ facts.relevant_documents_absent | count }} relevant documents are not in
the corpus.{% endif %}</p>
<h2>Means</h2>
<div class="wide"><table>
<tr><th class="words" scope="col">measure</th>
{% for system in systems %}<th scope="col">{{ system.system }}</th>{% endfor %}</tr>
{% for name in systems[0].means %}<tr><td class="words">{{ name }}</td>
{% for system in systems %}<td>{{ system.means[name] | figure }}
{% if system.intervals[name] %}<br><small>{{ system.intervals[name][0] | figure }} to
{{ system.intervals[name][1] | figure }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<p><img src="data:image/png;base64,{{ means }}" alt="Means with intervals"></p>
{% for each in comparisons %}
<h2>{{ each.new }} against {{ each.old }}</h2>
<div class="wide"><table>
<tr><th class="words" scope="col">measure</th><th scope="col">old</th><th scope="col">new</th>
<th scope="col">difference</th><th scope="col">95% interval</th><th scope="col">p bootstrap</th>
<th scope="col">p randomisation</th><th scope="col">with Holm</th><th scope="col">wins / losses / ties</th></tr>
{% for name, test in each.measures.items() %}<tr><td class="words">{{ name }}</td><td>{{ test.old | figure }}</td>
<td>{{ test.new | figure }}</td><td>{{ test.difference | figure }}{% if test.relative is not none %}
({{ "%+.1f%%" | format(100 * test.relative) }}){% endif %}</td>
<td>{{ test.low | figure }} to {{ test.high | figure }}</td><td>{{ test.p_bootstrap | figure }}</td>
<td>{{ test.p_fisher | figure }}</td><td>{{ test.p_fisher_holm | figure }}</td>
<td>{{ test.wins }} / {{ test.losses }} / {{ test.ties }}</td></tr>
{% endfor %}</table></div>
<p><img src="data:image/png;base64,{{ each.plot }}" alt="Differences by query"></p>
<p>{{ each.shown | length | count }} of {{ each.total | count }} queries by {{ each.queries.measure }}; a click on a
head sorts.</p>
<div class="wide"><table class="sortable"><thead>
<tr><th class="words" scope="col">query</th><th scope="col">old</th><th scope="col">new</th>
<th scope="col">difference</th><th class="words" scope="col">first of the old</th>
<th class="words" scope="col">first of the new</th></tr></thead><tbody>
{% for row in each.shown %}{% set delta = row.new - row.old %}
<tr><td class="words">{{ row.text }}<br><small>{{ row.query_id }}</small></td>
<td data-value="{{ row.old }}">{{ row.old | figure }}</td><td data-value="{{ row.new }}">{{ row.new | figure }}</td>
<td data-value="{{ delta }}" class="{{ 'win' if delta > 0 else 'loss' if delta < 0 else '' }}">
{{- delta | figure }}</td>
{% for side in ("old", "new") %}<td class="words">{{ row[side ~ "_first_text"] or "no answer" }}<br>
<small>{{ row[side ~ "_first"] }}{% if row[side ~ "_first_grade"] is not none and row[side ~ "_first"] %}, grade
{{ row[side ~ "_first_grade"] }}{% endif %}</small></td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
<script>{{ script }}</script>
</body>
</html>
"""


def page_of(document: Mapping[str, Any]) -> str:
    """The page of a document of `reporting.document_of`."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters.update(figure=figure, count=lambda number: f"{number:,}")
    systems = systems_in(document)
    return environment.from_string(TEMPLATE).render(
        systems=systems,
        facts=document["facts"],
        means=_inline(means_png(systems)),
        comparisons=[_shown(each) for each in comparisons_in(document)],
        style=Markup(STYLE),  # noqa: S704 (the constant above)
        script=Markup(SCRIPT),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )


def figure(value: float | None) -> str:
    """Four digits; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.4f}"


def _shown(comparison: Mapping[str, Any]) -> dict[str, Any]:
    queries = comparison["queries"]
    rows: Sequence[Mapping[str, Any]] = [*queries["wins"], *queries["losses"], *queries["ties"]]
    by_size = sorted(rows, key=lambda row: -abs(row["new"] - row["old"]))
    return {**comparison, "plot": _inline(differences_png(comparison)), "shown": by_size[:ROWS], "total": len(rows)}


def _inline(png: bytes) -> str:
    return base64.b64encode(png).decode()
