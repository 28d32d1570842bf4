"""The card of a Hugging Face dataset: YAML front matter that the hub reads, and what a reader must know to trust
the data: how it was made, by which judges, what was measured of them, and what was left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.labels.exports.request import Options

_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TEXT: Final = """---
{front}
---

# {title}

Training data for retrieval models: {rows} queries of the collection `{collection}`, each with passages that a judge
found relevant and negatives, hard and easy, that it found not relevant. Made by qrelay from its ledger of judgments:
no unjudged passage is a negative, and a judgment that failed is left out, never taken for a zero.

## Load it

```python
from datasets import load_dataset

dataset = load_dataset("{place}")
```

Each row has `query_id`, `query`, `positives` and `negatives`; each passage has `passage_id`, `doc_id`, `title`,
`text`, `grade` (the judge's own), `p_relevant` (0 to 1) and `reason`, the rule that chose it.

## Counts

{counts}

## Judges

Labels are measurements by language models, not by people, unless a judge below says so.

{judges}

Qualification of these labels for training: **{verdict}**{forced}.

## Rules of mining

```json
{rules}
```

## Licence

{licence}
"""


def card(facts: Mapping[str, Any], paths: Mapping[str, str], options: Options) -> str:
    """README.md. `facts`: the manifest; `paths`: the data file of each split."""
    qualification = facts["qualification"]
    return _TEXT.format(
        front=_front_matter(facts, paths, options),
        title=options.name or facts["collection"],
        rows=facts["rows"],
        collection=facts["collection"],
        place=options.name if "/" in options.name else "path/to/this/folder",
        counts=_counts(facts, paths),
        judges=_judges(facts),
        verdict=qualification["verdict"],
        forced=" (exported all the same)" if qualification["unqualified"] else "",
        rules=json.dumps(facts["rules"], indent=2),
        licence=_licence(options),
    )


_INCREMENTS: Final = """---
{front}
---

# {title}

Training data for retrieval models, published by qrelay from its ledger of judgments as labels come in. No unjudged
passage is a negative, and a judgment that failed is left out, never taken for a zero. Labels are measurements by
language models, not by people, unless a manifest says so.

## Load it

```python
from datasets import load_dataset

rows = load_dataset("{title}", "{collection}", split="{split}").to_pandas()
rows = rows.drop_duplicates("query_id", keep="last")
```

Files are increments: `data/COLLECTION/FROM-TO/` holds the whole rows of every query that the changes FROM (exclusive)
to TO (inclusive) of the ledger touched. A query that was judged again later is in a later increment too, and its last
rows count. Its `manifest.json` has counts, sha256, judges, what was measured of them, the rules of mining, and under
`emptied` the queries that have no row any more.

Each row has `query_id`, `query`, `positives` and `negatives`; each passage has `passage_id`, `doc_id`, `title`,
`text`, `grade` (the judge's own), `p_relevant` (0 to 1) and `reason`, the rule that chose it.

## Licence

{licence}
"""


def increments_card(splits: Mapping[str, Sequence[str]], options: Options, repo: str) -> str:
    """README.md of a repository of increments. splits: of each collection."""
    configs = [
        {
            "config_name": collection,
            "data_files": [{"split": split, "path": f"data/{collection}/*/{split}-*.parquet"} for split in names],
        }
        for collection, names in sorted(splits.items())
    ]
    collection, names = min(splits.items())
    return _INCREMENTS.format(
        front=_yaml(repo, options, configs),
        title=repo,
        collection=collection,
        split=names[0],
        licence=_licence(options),
    )


def _licence(options: Options) -> str:
    return f"`{options.license}`, as the publisher states it." if options.license else _NO_LICENCE


_NO_LICENCE: Final = "None was given. The texts are the corpus's: ask the publisher before using them."


def _front_matter(facts: Mapping[str, Any], paths: Mapping[str, str], options: Options) -> str:
    files = [{"split": split, "path": path} for split, path in paths.items()]
    size = next((word for limit, word in _SIZES if facts["rows"] < limit), "n>1M")
    configs = [{"config_name": "default", "data_files": files}]
    return _yaml(options.name or facts["collection"], options, configs, size)


def _yaml(name: str, options: Options, configs: Sequence[Mapping[str, Any]], size: str | None = None) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        pretty_name=name,
        license=options.license or None,
        task_categories=["text-retrieval", "text-ranking"],
        tags=["qrelay", "information-retrieval", "relevance-judgments", "hard-negatives"],
        size_categories=size,
        configs=configs,
    )
    return str(data.to_yaml())


def _counts(facts: Mapping[str, Any], paths: Mapping[str, str]) -> str:
    splits = facts.get("splits") or {split: {"queries": facts["queries"], "rows": facts["rows"]} for split in paths}
    lines = ["| split | rows |", "|---|---|", *(f"| {name} | {each['rows']} |" for name, each in splits.items())]
    grades = ", ".join(f"{count} of grade {grade}" for grade, count in facts["grades"].items()) or "none"
    missing = ", ".join(f"{count} {reason}" for reason, count in facts["missing"].items()) or "none"
    return "\n".join(
        [*lines, "", f"Labels in the ledger: {grades}. Missing judgments, all left out: {missing}."]
        + ([f"Labels set by people: {facts['overrides']}."] if facts["overrides"] else [])
    )


def _judges(facts: Mapping[str, Any]) -> str:
    lines = ["| judge | model | strategy | scale | prompt |", "|---|---|---|---|---|"]
    for each in facts["judges"]:
        weights = f"{each['model']}@{each['revision']}:{each['quantisation']}"
        lines.append(
            f"| `{each['judge'][:12]}` | `{weights}` | {each['strategy']} | {each['scale']} |"
            f" `{each['prompt_hash'][:12]}` |"
        )
    return "\n".join(lines)
