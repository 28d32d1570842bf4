"""Every export format, one line each. A format is one file in `formats/` and one line here.

Light on purpose: the command line lists formats without loading what writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NO_LABELS: Final = "none"
"""Rankings alone: no label is read."""
QRELS_USE: Final = "qrels"
"""Every graded label, as a judgment to evaluate with: written whatever is known of its judge, with a warning."""
GRADES_USE: Final = "grades"
"""Every graded label as training data: refused where its judge's labels may not train, see `labels/permission.py`."""
EXAMPLES_USE: Final = "examples"
"""Mined positives and negatives: refused where their judge's labels may not train."""
TRAINING: Final = (GRADES_USE, EXAMPLES_USE)
_TRAIN: Final = "train"


@dataclass(frozen=True, slots=True)
class Format:
    """One format. `module` in `formats/` has `lines(example)` for text, `columns()` and `rows(example)` for Parquet,
    or `open_writer(output, options) -> Writer` where it needs more; `use` is one of the words above. `suffix` is of
    its file; empty: it is a folder. `candidates`: it needs passages, not labels alone. `text`: its file may be
    streamed as text. `measured`: its rows tell what was measured beyond the grade. `verdicts`: they tell what mining
    makes of every passage. `scores`: they have teacher scores where that is asked for."""

    name: str
    about: str
    module: str
    use: str
    suffix: str = ""
    candidates: bool = True
    text: bool = False
    measured: bool = False
    verdicts: bool = False
    scores: bool = False

    @property
    def folder(self) -> bool:
        """Whether it is always a folder."""
        return not self.suffix

    def trains(self, split: str) -> bool:
        """Whether what it writes to this split (empty: there are none) is training data. Judgments are where their
        split says so by its name: BEIR's readers take qrels/train.tsv for that."""
        return self.use in TRAINING or (self.use == QRELS_USE and split.lower().startswith(_TRAIN))


_TABLE: Final = (
    Format("qrels", "TREC qrels: query_id 0 passage_id grade", "qrels", QRELS_USE, ".qrels", False, True),
    Format("run", "TREC run of one --system", "run", NO_LABELS, ".run", True, True),
    Format("runs", "folder: a TREC run a system", "runs", NO_LABELS),
    Format("beir", "folder: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv", "beir", QRELS_USE),
    Format("ir_datasets", "folder: docs.tsv, queries and qrels for ir_datasets", "ir_datasets", QRELS_USE),
    Format("triples", "JSONL: a query, its positives, its negatives", "triples", EXAMPLES_USE, ".jsonl", True, True,
           measured=True),
    Format("labels", "JSONL: a query and all graded passages, soft", "labels", GRADES_USE, ".jsonl", True, True,
           measured=True, verdicts=True),
    Format("tevatron", "Tevatron's JSONL", "tevatron", EXAMPLES_USE, ".jsonl", True, True, scores=True),
    Format("tevatron-v2", "folder: Tevatron v2's train.jsonl and corpus.jsonl", "tevatron_v2", EXAMPLES_USE,
           scores=True),
    Format("flagembedding", "FlagEmbedding's JSONL, with teacher scores", "flagembedding", EXAMPLES_USE, ".jsonl",
           True, True),
    Format("msmarco", "TSV of texts: query, positive, negative", "msmarco", EXAMPLES_USE, ".tsv", True, True),
    Format("msmarco-ids", "TSV of ids: query, positive, negative", "msmarco_ids", EXAMPLES_USE, ".tsv", True, True),
    Format("st-triplet", "Parquet: anchor, positive, negative", "st_triplet", EXAMPLES_USE, ".parquet",
           scores=True),
    Format("st-ntuple", "Parquet: anchor, positive, negative_1 ...", "st_ntuple", EXAMPLES_USE, ".parquet",
           scores=True),
    Format("st-labeled-list", "Parquet: query, docs, labels (grades)", "st_labeled_list", GRADES_USE, ".parquet"),
    Format("st-pairs", "Parquet: sentence1, sentence2, score (P(relevant))", "st_pairs", GRADES_USE, ".parquet"),
    Format("hf", "folder: Hugging Face dataset, Parquet and its card", "hf", EXAMPLES_USE),
)  # fmt: skip
FORMATS: Final = {each.name: each for each in _TABLE}
"""Every format by name."""
QRELS: Final = "qrels"
TRIPLES: Final = "triples"
