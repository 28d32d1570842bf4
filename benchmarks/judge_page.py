"""The tables of `make judge-table` as docs/judge.md has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks import judge_transfer
from benchmarks.public import Public, cell
from qrelay.bench.table import Grid, markdown_lines
from scripts import marked

BEGIN, END = "<!-- judge table: begin -->", "<!-- judge table: end -->"
TRANSFER = "transfer"
"""Its key in the JSON, and its word in the page's markers."""
_COLUMNS: Final = {"auc_within_query": "within", "kappa_binary": "kappa binary", "kappa_four_point": "kappa 4-point",
                   "kappa_graded": "quadratic", "tau": "tau"}  # fmt: skip


def markdown(found: Mapping[str, Any], publics: Mapping[str, Public]) -> str:
    """The tables of what was measured, a collection after the other."""
    return "\n\n".join(section(public, found.get(name)) for name, public in publics.items())


def transfer(found: Mapping[str, Any], publics: Mapping[str, Public]) -> str:
    """The table of maps that were fitted elsewhere."""
    titles = {name: public.title for name, public in publics.items()}
    return judge_transfer.markdown(found.get(TRANSFER, []), titles)


def section(public: Public, found: Mapping[str, Any] | None) -> str:
    """One collection's table."""
    if found is None:
        return f"**{public.title}**: not measured yet."
    columns = [key for key in _COLUMNS if key != "tau" or public.runs]
    head = ["", "AUC (95 %)", *(_COLUMNS[key] for key in columns), "AUC beside the best retrieval score"]
    counted = f"{found['queries']} queries, {found['pairs']:,} pairs, {found['relevant']:,} relevant; cosines by "
    rows = [_row(name, row, columns) for name, row in found["rows"].items()]
    for name, peer in public.peers.items():
        rows.append([f"{name} (published)", cell(peer["auc"]), *(cell(peer.get(key)) for key in columns), ""])
    return "\n".join(
        [f"**{public.title}**: {counted}{found['embedders']}.", "", *markdown_lines(Grid("", head, rows))]
    )


def _row(name: str, row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    if "lacking" in row:
        return [name, f"not measured (labels: {', '.join(row['lacking'])})", *[""] * (len(columns) + 1)]
    cells = [cell(row["auc"], row["auc_ci"]), *(cell(row[key], row.get(f"{key}_ci", ())) for key in columns)]
    return [name, *cells, "{difference:+.3f}, p {p:.3f}".format(**row["against"]) if "against" in row else ""]


def filled(page: str, found: Mapping[str, Any], publics: Mapping[str, Public]) -> str:
    """The page with its table as the figures are now. Raises ValueError where the markers are not there."""
    page = marked.filled(page, BEGIN, END, markdown(found, publics))
    begin, end = (each.replace("table", TRANSFER) for each in (BEGIN, END))
    return marked.filled(page, begin, end, transfer(found, publics))
