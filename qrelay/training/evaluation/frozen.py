"""Frozen evaluation sets: a folder in BEIR's layout that says whose labels it has and cannot change unseen.

    corpus.jsonl[.gz]  queries.jsonl[.gz]  qrels/test.tsv[.gz]
    set.json           {"name", "collection", "about", "labels": {"source", "judges", "relevant_from"},
                        "files": {file: sha256}}

collection: where the queries are from, if that is known. source: `human` (people graded these pairs), `gold` (labels
that came with the data), `judge` (an LLM's). judges: the identities of the LLM judges, each {"model", "revision",
"strategy", …}: a gate compares them with those who mined the training data. `qrelay eval freeze` writes such a
folder; where `files` is there, other bytes are refused.

    frozen = FrozenSet.read(Path("sets/medquad-dev"))
    frozen.evaluate("out/model", "bi_encoder").means["nDCG@10"]
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from qrelay.errors import MalformedInput
from qrelay.formats.beir import Collection, read_collection
from qrelay.formats.lines import file_in
from qrelay.models.home import hash_file
from qrelay.parsing import json_document
from qrelay.training.evaluation.answering import Kind, Options, answer
from qrelay.training.evaluation.evaluate import Evaluation, evaluate
from qrelay.training.evaluation.manifests import JudgeFacts
from qrelay.training.evaluation.measures import STANDARD

SET_FILE: Final = "set.json"
Source = Literal["human", "gold", "judge"]


@dataclass(frozen=True)
class FrozenSet:
    """name and about: for people. sha256: of set.json and the three files, in hexadecimal; equal sets have equal
    hashes, wherever they lie."""

    name: str
    collection: Collection
    source: Source
    judges: tuple[JudgeFacts, ...]
    sha256: str
    about: str = ""
    folder: Path = Path()

    @classmethod
    def read(cls, folder: Path) -> FrozenSet:
        """The set in the folder.

        Raises:
            MalformedInput: a file is absent, does not parse, or has other bytes than when it was frozen.
        """
        told = _told(folder)
        paths = data_files(folder)
        hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in (folder / SET_FILE, *paths)}
        _unchanged(folder, told.get("files"), hashes)
        labels = told["labels"]
        corpus, queries, qrels = paths
        return cls(
            name=told["name"],
            collection=read_collection(corpus, queries, qrels, relevant_from=labels.get("relevant_from", 1)),
            source=labels["source"],
            judges=tuple(labels.get("judges") or ()),
            sha256=content_hash(hashes),
            about=told.get("about") or "",
            folder=folder,
        )

    def evaluate(
        self,
        model: str | Path,
        kind: Kind | None = None,
        *,
        options: Options = Options(),  # noqa: B008 (frozen)
        measures: Sequence[str] = STANDARD,
    ) -> Evaluation:
        """The model's measures on the set: a bi-encoder by exact search of the corpus, a cross-encoder over BM25's
        top 100 (or `options.first`). kind: what the model must be; None: whatever it is.

        Raises:
            ModelError: the model is absent or cannot be loaded.
            ConfigError: it is of another kind.
        """
        run = answer(self.collection, model, options, kind=kind)
        return evaluate(self.collection, str(model), run, measures)


def data_files(folder: Path) -> tuple[Path, Path, Path]:
    """corpus, queries and qrels of a folder in BEIR's layout. Raises MalformedInput: one is absent."""
    qrels = file_in(folder, "qrels/test.tsv")
    return file_in(folder, "corpus.jsonl"), file_in(folder, "queries.jsonl"), qrels


def content_hash(hashes: Mapping[str, str]) -> str:
    """sha256 over the sorted lines `sha256  path`."""
    return hashlib.sha256("".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes)).encode()).hexdigest()


def _told(folder: Path) -> dict[str, Any]:
    path = folder / SET_FILE
    try:
        told = json_document(path.read_bytes())
    except FileNotFoundError:
        raise MalformedInput(
            f"{folder} is not a frozen set: it has no {SET_FILE}; `qrelay eval freeze` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise MalformedInput(f"cannot read {path}: {error}") from error
    if problems := list(_problems(told)):
        raise MalformedInput(f"{path}: {'; '.join(problems)}")
    return dict(told)


def _problems(told: Any) -> list[str]:
    """Everything in set.json that is not what it must be."""
    if not isinstance(told, dict):
        return ["not a JSON object"]
    labels = told.get("labels")
    if not isinstance(labels, dict):
        return ["`labels` must be an object with `source`"]
    judges, relevant_from = labels.get("judges") or [], labels.get("relevant_from", 1)
    named = isinstance(judges, list) and all(isinstance(each, dict) and each.get("model") for each in judges)
    checks = {
        "`name` must be a text": isinstance(told.get("name"), str) and bool(told["name"]),
        "`collection` must be a text": isinstance(told.get("collection", ""), str),
        f"`labels.source` must be one of {', '.join(get_args(Source))}": labels.get("source") in get_args(Source),
        "`labels.judges` must be a list of objects with `model`": named,
        "`labels.judges` must name who judged, where the source is judge": labels.get("source") != "judge" or judges,
        "`labels.relevant_from` must be a whole number above 0": isinstance(relevant_from, int) and relevant_from > 0,
    }
    return [problem for problem, holds in checks.items() if not holds]


def _unchanged(folder: Path, frozen: Mapping[str, str] | None, found: Mapping[str, str]) -> None:
    changed = sorted(path for path, sha256 in (frozen or {}).items() if found.get(path) != sha256)
    if changed:
        raise MalformedInput(
            f"{folder} changed since it was frozen ({', '.join(changed)}): take the original, or freeze a new set"
        )
