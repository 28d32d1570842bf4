"""Training sets of other libraries: read as examples, written back in their own format with what was decided of them.

    found = open_training_set(Path("train.jsonl"))
    found.layout.name                       # flagembedding, as its fields say
    found.layout.example(row)               # a TrainingExample, whatever the file
    found.layout.cleaned(row, decided)      # the rows that are left of it

Two things make a format: a container, which says how rows lie in a file (`containers.py`, `beir.py`), and a layout,
which says where a row has its query, positives and negatives (`layouts.py`). `detect.py` finds both.
"""

from typing import Final

FORMATS: Final = (
    "flagembedding",
    "tevatron",
    "tevatron-v2",
    "st-labeled-list",
    "st-ntuple",
    "st-triplet",
    "st-pairs",
    "msmarco-ids",
    "msmarco",
    "beir",
)
"""Every format by name, as --format has them; here, where a command's help needs no library to read them."""
