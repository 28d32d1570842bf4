"""The card of a pushed version: YAML front matter that the hub reads, and what a reader must know to trust the
model: what it was trained on, who judged that, how it was measured, and what it is not for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qrelay.models.registry.describe import gate_rows, moment
from qrelay.models.registry.events import Event
from qrelay.models.registry.manifest import DataSource, Manifest
from qrelay.models.registry.slots import BI_ENCODER, kind_of

_TEXT: Final = """---
{front}
---

# {title}

A {what} that qrelay fine-tuned from `{base}`{parent}, on relevance judgments of {collections}. Version `{version}`,
published {created}, state `{state}`.

## Load it

```python
{load}
```

## Data

{data}

## Judges

{judges}

## Experiment

```json
{experiment}
```

## Evaluation

{gate}

## Limits

{limits}
"""
_LOAD: Final = {
    True: """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{place}")
scores = model.similarity(model.encode_query(["a query"]), model.encode_document(["a passage"]))""",
    False: """from sentence_transformers import CrossEncoder

model = CrossEncoder("{place}")
scores = model.predict([("a query", "a passage")])""",
}
_LIMITS: Final = """- Fine-tuned for {collections}; elsewhere it may be worse than its base: measure first.
- {labels}
- It inherits the base model's licence, languages, length limit and biases. Nothing here is legal advice: the texts
  that it was trained on may have terms of their own."""


def card(
    manifest: Manifest,
    *,
    repo: str,
    state: str,
    gate: Event | None,
    tainted_by: Sequence[str],
    datasets: Sequence[str],
) -> str:
    """README.md. `gate`: the latest verdict; `datasets`: repositories on the hub that the data was pushed to."""
    collections = _listed(manifest.collections) or "a collection that was not named"
    dense = kind_of(manifest.slot) == BI_ENCODER
    return _TEXT.format(
        front=_front_matter(manifest, repo, gate, datasets),
        title=repo,
        what="bi-encoder (text embeddings for retrieval)" if dense else "cross-encoder (a reranker)",
        base=manifest.base,
        parent=f", by way of version `{manifest.parent}`" if manifest.parent else "",
        collections=collections,
        version=manifest.version,
        created=moment(manifest.created_us),
        state=state,
        load=_LOAD[dense].format(place=repo),
        data="\n".join(_data(manifest.data)),
        judges="\n".join(_judges(manifest, tainted_by)),
        experiment=json.dumps(manifest.experiment, indent=2, ensure_ascii=False),
        gate="\n".join(_gate(gate)),
        limits=_LIMITS.format(collections=collections, labels=_labels(manifest)),
    )


def _front_matter(manifest: Manifest, repo: str, gate: Event | None, datasets: Sequence[str]) -> str:
    from huggingface_hub import ModelCardData

    dense = kind_of(manifest.slot) == BI_ENCODER
    results = _results(gate, dense)
    data = ModelCardData(
        base_model=manifest.base.split("@")[0],
        datasets=list(datasets) or None,
        eval_results=results or None,
        model_name=repo if results else None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity" if dense else "text-ranking",
        tags=["qrelay", "sentence-transformers", "information-retrieval",
              "retrieval" if dense else "reranker"],
    )  # fmt: skip
    return str(data.to_yaml()).strip()


def _results(gate: Event | None, dense: bool) -> list[Any]:
    from huggingface_hub import EvalResult

    task = ("sentence-similarity", "Retrieval") if dense else ("text-ranking", "Reranking")
    return [
        EvalResult(
            task_type=task[0], task_name=task[1], dataset_type=str(row["set"]), dataset_name=str(row["set"]),
            metric_type=str(row["metric"]), metric_name=str(row["metric"]), metric_value=round(row["candidate"], 4),
        )
        for row in gate_rows(gate)
        if row.get("candidate") is not None
    ]  # fmt: skip


def _data(sources: Sequence[DataSource]) -> Iterable[str]:
    if not sources:
        yield "The manifest names no data."
    for source in sources:
        export = source.manifest
        yield f"- `{source.name}`: {source.rows} rows, sha256 `{source.sha256}`{_export(export)}"
        if missing := export.get("missing"):
            counts = ", ".join(f"{count} {reason}" for reason, count in missing.items())
            yield f"  Judgments that failed were left out, never taken for zeros: {counts}."


def _export(export: Mapping[str, Any]) -> str:
    if not export:
        return ""
    grades = ", ".join(f"{count} of grade {grade}" for grade, count in export.get("grades", {}).items())
    ledger = export.get("changes") or {"to": export.get("ledger", {}).get("change_no")}
    changes = f"; changes {ledger.get('from', 0)} to {ledger['to']} of the ledger" if ledger["to"] else ""
    return (
        f"; an export of the ledger ({export.get('format')}): {export.get('queries')} queries of"
        f" `{export.get('collection')}`{changes}; labels: {grades or 'not counted'}."
    )


def _judges(manifest: Manifest, tainted_by: Sequence[str]) -> Iterable[str]:
    if not manifest.judges:
        yield "The manifest names no judge."
        return
    yield "| judge | model | strategy | labels | |"
    yield "|---|---|---|---|---|"
    for judge in manifest.judges:
        word = "**retracted**" if judge.hash in tainted_by else ""
        yield (
            f"| `{judge.hash[:12]}` | `{judge.model}@{judge.revision}` | {judge.strategy} | {judge.labels} | {word} |"
        )
    for verdict in {str(each["verdict"]): None for each in _qualifications(manifest)}:
        yield f"\nQualification of these labels for training: **{verdict}**."
    if tainted_by:
        yield f"\n**Tainted**: labels of {_listed(tainted_by)}, on which it or a parent was trained, were retracted."


def _qualifications(manifest: Manifest) -> list[Mapping[str, Any]]:
    found = (source.manifest.get("qualification") for source in manifest.data)
    return [each for each in found if isinstance(each, Mapping) and "verdict" in each]


def _gate(gate: Event | None) -> Iterable[str]:
    if gate is None:
        yield "It was not measured by the gate."
        return
    against = f"version `{gate.detail['against']}`" if gate.detail["against"] else "the model that served before"
    word = "passed" if gate.detail["passed"] else "failed"
    yield f"The gate {word} it against {against}, {moment(gate.at_us)}: {gate.detail.get('why', '')}"
    if rows := gate_rows(gate):
        yield "\n| | rule | set | metric | queries | before | this | difference | p |"
        yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = (row.get(name) for name in
                 ("rule", "set", "metric", "queries", "baseline", "candidate", "difference", "p"))  # fmt: skip
        yield f"| {'pass' if row.get('passed') else 'FAIL'} | {' | '.join(map(_cell, cells))} |"


def _labels(manifest: Manifest) -> str:
    if manifest.judges and all(judge.strategy == "human" for judge in manifest.judges):
        return "Its labels are people's."
    return "Its labels are measurements by language models, with their errors; the table of judges says whose."


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
