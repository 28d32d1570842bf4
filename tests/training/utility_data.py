"""MedQuAD and LiveQA-Med in small: the same files, with made-up questions of the same shape."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

ILLNESSES = ("asthma", "gout", "measles", "anaemia", "eczema", "malaria", "rickets", "scurvy", "mumps", "cholera")
ASPECTS = ("causes", "treats")
SOURCES = ("one", "other")
_SAID = {
    ("causes", "one"): "The body of a person with {0} cannot bear what others eat and breathe.",
    ("causes", "other"): "What causes {0} is found in air or food, says the other source of {0}.",
    ("causes", "three"): "Nobody knows for certain what causes {0}; age and family play a part.",
    ("causes", "four"): "The causes of {0} are food, air, age and what runs in a family.",
    ("treats", "one"): "Doctors treat {0} by rest, and by a drug against {0} for some days.",
    ("treats", "other"): "A drug treats {0} within weeks; sleep helps a person with {0} too.",
    ("treats", "three"): "Who has {0} should see a doctor, who knows what treats {0}.",
}
"""No two of them share eight words in a row."""


def write(folder: Path) -> None:
    """Both collections, in `folder`."""
    _medquad(folder / "medquad")
    _liveqa(folder / "liveqa-med")


def _medquad(folder: Path) -> None:
    documents = [
        {"_id": f"{illness}-{aspect}-{source}", "title": illness, "text": _SAID[aspect, source].format(illness),
         "metadata": {"source": source}}
        for illness, aspect, source in product(ILLNESSES, ASPECTS, SOURCES)
    ]  # fmt: skip
    _lines(folder / "corpus.jsonl.gz", documents)
    for split, own in (("train", ILLNESSES[:6]), ("dev", ILLNESSES[6:])):
        asked = [*product(own, ASPECTS)]
        _lines(
            folder / f"queries.{split}.jsonl.gz", ({"_id": f"{i}-{a}", "text": f"What {a} {i}?"} for i, a in asked)
        )
        _qrels(
            folder / "qrels" / f"{split}.tsv.gz",
            ((f"{i}-{a}", f"{i}-{a}-{s}", 1) for (i, a), s in product(asked, SOURCES)),
        )


def _liveqa(folder: Path) -> None:
    documents = [
        {"_id": f"{i}-{a}", "title": i, "text": _SAID[a, "three"].format(i)} for i, a in product(ILLNESSES, ASPECTS)
    ]
    _lines(folder / "corpus.jsonl.gz", documents)
    _lines(folder / "queries.dev.jsonl", ({"_id": i, "text": f"Tell me what causes {i}, please."} for i in ILLNESSES))
    _lines(
        folder / "answers.dev.jsonl", ({"_id": i, "answers": [_SAID["causes", "four"].format(i)]} for i in ILLNESSES)
    )
    near = dict(zip(ILLNESSES, (*ILLNESSES[1:], ILLNESSES[0]), strict=True))
    graded = [
        row for i in ILLNESSES for row in ((i, f"{i}-causes", 4), (i, f"{i}-treats", 2), (i, f"{near[i]}-causes", 1))
    ]
    _qrels(folder / "qrels.dev.tsv", graded)


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _qrels(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    lines = [f"{query_id}\t{doc_id}\t{grade}\n" for query_id, doc_id, grade in rows]
    _write(path, "".join(["query-id\tcorpus-id\tscore\n", *lines]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
