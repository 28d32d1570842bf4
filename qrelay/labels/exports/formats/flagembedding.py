"""FlagEmbedding's training JSONL (https://github.com/FlagOpen/FlagEmbedding), one object a query:
`{query_id, query, pos, neg, pos_scores, neg_scores, pos_id, neg_id}`. The scores are the judge's P(relevant), 0 to 1,
which its trainers read with `--knowledge_distillation True`. There is no `prompt`: one here would take the place of
the trainer's own instruction.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from qrelay.labels.examples import Example
from qrelay.labels.exports.rows import teacher_score, verdict_text


def lines(item: Example) -> Iterator[bytes]:
    """The query's example."""
    if item.positives:
        sides = (("pos", item.positives), ("neg", item.negatives))
        row = {
            "query_id": item.query.query_id,
            "query": item.query.text,
            **{name: [verdict_text(each) for each in found] for name, found in sides},
            **{f"{name}_scores": [teacher_score(item, each) for each in found] for name, found in sides},
            **{f"{name}_id": [item.name_of(each.passage_id) for each in found] for name, found in sides},
        }
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
