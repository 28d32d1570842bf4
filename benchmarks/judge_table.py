"""`make judge-table`: the judges on public collections beside peers' published labels, as one table.

    python -m benchmarks.judge_table --cache .qrelay/judge-cache.sqlite             # LLMJudge DL23 and LiveQA-Med dev
    python -m benchmarks.judge_table --cache … --dl19                               # DL19 too: measured once
    python -m benchmarks.judge_table --cache … --transfer --folder mine:2           # maps on other collections

Labels come from the judgment cache alone, whichever engine made them: no judge's model is loaded. A row whose labels
are not all there is told as not measured; `qrelay judge eval` with the same cache makes them (docs/judge.md has the
commands). Passages' vectors are kept in --vectors. Writes docs/judge-table.json and, of it, the table between the
markers of docs/judge.md; a collection that is left out keeps its figures.

--transfer writes the other table instead: what maps fitted on each of the collections are worth on the others
(`judge_transfer`). --folder: a collection of yours besides; it prints. --half: the queries at even (a) or odd (b)
places of the sorted ids, for choosing on one and reporting the other; it prints. Needs ../shared/data, or --data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks import judge_transfer
from benchmarks.judge_page import TRANSFER, filled, section, transfer
from benchmarks.public import COLLECTIONS, Public, options
from benchmarks.tables import BOTH_DENSE, CONSENSUS, JUDGES, MINILM, MPNET, Kept, table_of
from qrelay.errors import QrelayError
from qrelay.files import write_atomic
from qrelay.formats.runs import read_run
from qrelay.judging.cache import open_cache
from qrelay.judging.qualification.systems import FUSED, FUSED_STAGES, Evaluation, System, evaluate, with_stages
from qrelay.judging.qualification.table import Table
from qrelay.judging.report.write import without_nan
from qrelay.models.engines import EncoderEngine
from qrelay.training.evaluation.agreement import Judged, agreement
from qrelay.types import BM25

ROOT = Path(__file__).resolve().parents[1]
JSON, PAGE = ROOT / "docs" / "judge-table.json", ROOT / "docs" / "judge.md"

DENSES: Final = {"MiniLM": BOTH_DENSE[:1], "mpnet": BOTH_DENSE[1:], "both cosines": BOTH_DENSE}
ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    "query likelihood, 0.5B": ("0.5B",),
    "query likelihood, 1.5B": ("1.5B",),
    f"{MINILM} cosine": BOTH_DENSE[:1],
    f"{MPNET} cosine": BOTH_DENSE[1:],
    "BM25": (BM25,),
    "both cosines": BOTH_DENSE,
    f"`{FUSED}`: 0.5B, 1.5B": tuple(JUDGES),
    **{
        f"`{FUSED_STAGES}`: {', '.join((*judges, said))}": with_stages(judges, dense)
        for judges in (("0.5B",), ("1.5B",), tuple(JUDGES))
        for said, dense in DENSES.items()
    },
    f"consensus, {MPNET}": (CONSENSUS,),
    f"`{FUSED}`: 0.5B, consensus": ("0.5B", CONSENSUS),
    f"`{FUSED}`: 1.5B, consensus": ("1.5B", CONSENSUS),
    f"`{FUSED}`: 0.5B, 1.5B, consensus": (*JUDGES, CONSENSUS),
    f"`{FUSED_STAGES}`: 0.5B, consensus, MiniLM": with_stages(("0.5B", CONSENSUS), BOTH_DENSE[:1]),
    f"`{FUSED_STAGES}`: 1.5B, consensus, MiniLM": with_stages(("1.5B", CONSENSUS), BOTH_DENSE[:1]),
    f"`{FUSED_STAGES}`: 0.5B, 1.5B, consensus, MiniLM": with_stages((*JUDGES, CONSENSUS), BOTH_DENSE[:1]),
}
"""A row's name and its inputs."""


def taus(table: Table, system: System, folder: Path) -> dict[str, Any]:
    """Kendall's tau of the official runs under the system's cross-validated grades and under people's, by nDCG@10."""
    assert system.predictions is not None
    runs = {path.name.removesuffix(".run.gz"): read_run(path) for path in sorted(folder.glob("*.run.gz"))}
    sides: list[dict[str, dict[str, int]]] = [{}, {}]
    for pair, people, said in zip(table.pairs, table.grades, system.predictions.grade, strict=True):
        for side, grade in zip(sides, (people, said), strict=True):
            side.setdefault(pair.query_id, {})[pair.passage_id] = int(grade)
    found = agreement(Judged(sides[0]), Judged(sides[1]), runs, ["nDCG@10"])
    one = found["measures"]["nDCG@10"]
    return {"tau": one["tau"], "tau_ci": [one["tau_low"], one["tau_high"]], "tau_queries": found["queries"]}


def figures(evaluation: Evaluation, there: Mapping[str, int], runs: Path | None) -> dict[str, Any]:
    """One collection's rows, as in the JSON."""
    table = evaluation.table
    against = {each["a"]: each for each in evaluation.comparisons}
    found: dict[str, Any] = {}
    for row, inputs in ROWS.items():
        lacking = [name for name in (*JUDGES, CONSENSUS) if name in inputs and name not in table.labels]
        if lacking:
            counts = [f"{name} {there.get(name, 0):,} of {len(table.pairs):,}" for name in lacking]
            found[row] = {"inputs": list(inputs), "lacking": counts}
            continue
        system = evaluation.systems[inputs[0] if len(inputs) == 1 else row]
        shown = ("auc", "auc_ci", "auc_within_query", "auc_within_query_n", "kappa_binary", "kappa_binary_ci",
                "kappa_four_point", "kappa_graded")  # fmt: skip
        found[row] = {"inputs": list(inputs), **{key: system.metrics[key] for key in shown}}
        found[row] |= {"against": against[system.name]} if system.name in against else {}
        if runs is not None:
            found[row] |= taus(table, system, runs)
    return found


def measured(table: Table, there: Mapping[str, int], runs: Path | None) -> dict[str, Any]:
    """One collection's figures. runs: the folder of official runs, where there are any."""
    lacking = {*JUDGES} - {*table.labels}
    fusions = {row: inputs for row, inputs in ROWS.items() if len(inputs) > 1 and not lacking & {*inputs}}
    evaluation = evaluate(table, fusions)
    return {
        "pairs": len(table.pairs),
        "queries": len(set(table.queries)),
        "relevant": int(table.relevant.sum()),
        "sha256": table.sha256,
        "judges": {each: table.labels[each][0].judge.decoding for each in table.labels},
        "rows": figures(evaluation, there, runs),
    }


def kept() -> dict[str, Any]:
    """What was measured before: collection -> figures."""
    return dict(json.loads(JSON.read_text("utf8"))) if JSON.exists() else {}


def _show(found: Mapping[str, Any], publics: Mapping[str, Public], *, peers: bool) -> None:
    if TRANSFER in found:
        print(transfer(found, publics))
        return
    for name, each in found.items():
        print(section(publics[name] if peers else replace(publics[name], peers={}), each), end="\n\n")


def _other(text: str) -> tuple[str, tuple[Public, Path]]:
    """PATH:GRADE of a folder, as (name, (what it is, where))."""
    path, _, grade = text.rpartition(":")
    if not path or not grade.lstrip("-").isdigit():
        raise argparse.ArgumentTypeError(f"{text}: write PATH:GRADE, such as collections/mine:2")
    queries = "queries.jsonl.gz" if (Path(path) / "queries.jsonl.gz").exists() else "queries.jsonl"
    return path, (Public(Path(path).name, queries, "qrels/test.tsv", int(grade), {}), Path(path))


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("--engine", choices=get_args(EncoderEngine), default="torch", help="Of the embedders.")
    parser.add_argument("--only", action="append", choices=COLLECTIONS, help="These collections.")
    parser.add_argument("--dl19", action="store_true", help="DL19 too.")
    parser.add_argument("--transfer", action="store_true", help="Instead: maps of each on the others.")
    parser.add_argument("--folder", action="append", default=[], type=_other, metavar="PATH:GRADE",
                        help="A BEIR folder (queries.jsonl, qrels/test.tsv), relevant from; prints.")  # fmt: skip
    parser.add_argument("--half", choices=("a", "b"), default="")
    parser.add_argument("--print", action="store_true", help="Print the table and write nothing.")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        raise SystemExit(f"skipped: {arguments.data} is not there; name the collections' folder with --data")
    chosen = arguments.only or [name for name in COLLECTIONS if arguments.dl19 or not COLLECTIONS[name].runs]
    load = once(partial(Kept, folder=arguments.vectors, engine=arguments.engine))
    cache = open_cache(arguments.cache)
    try:
        asked = {name: (COLLECTIONS[name], arguments.data / name) for name in chosen} | dict(arguments.folder)
        tables = {name: table_of(*where, cache, load, arguments.half) for name, where in asked.items()}
    except QrelayError as error:
        raise SystemExit(str(error)) from error
    finally:
        cache.close()
    fresh: dict[str, Any] = {}
    if arguments.transfer:
        recipes = {row: inputs for row, inputs in ROWS.items() if row != "BM25"}
        fresh[TRANSFER] = judge_transfer.transferred({name: table for name, (table, _) in tables.items()}, recipes)
        fresh[TRANSFER] += judge_transfer.of_others(kept().get(TRANSFER, []), tables)
    else:
        for name, (public, folder) in asked.items():
            runs = folder / public.runs if public.runs and not arguments.half else None
            fresh[name] = {"embedders": arguments.engine, **measured(*tables[name], runs)}
    if arguments.print or arguments.half or arguments.folder:
        _show(without_nan(fresh), {name: public for name, (public, _) in asked.items()}, peers=not arguments.half)
        return
    found = without_nan({**kept(), **fresh})
    write_atomic(JSON, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    write_atomic(PAGE, filled(PAGE.read_text("utf8"), found, COLLECTIONS).encode())


if __name__ == "__main__":
    main()
