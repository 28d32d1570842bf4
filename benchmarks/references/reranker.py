"""The reranker beside `CrossEncoder.predict`: the same pairs, model, batch size and length limit.

The model is a cross-encoder made of all-MiniLM-L6-v2's body with a new head: it ranks badly, and takes exactly the
time of a trained one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qrelay.models.catalogue import resolve
from qrelay.text import passage_text
from qrelay.types import CandidateSet

LIBRARY = "CrossEncoder.predict"
BODY = "all-MiniLM-L6-v2"
MAX_LENGTH, BATCH_PAIRS = 384, 32


def make_cross_encoder(folder: Path) -> Path:
    """A cross-encoder's folder; see the module."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    CrossEncoder(str(resolve(BODY).path), num_labels=1, max_length=MAX_LENGTH, local_files_only=True).save(
        str(folder)
    )
    return folder


class Bare:
    """Sets in, one score a candidate out."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(str(folder), max_length=MAX_LENGTH, local_files_only=True)

    def score(self, sets: Sequence[CandidateSet]) -> list[float]:
        """All pairs of all sets in one call."""
        passages = ((each.query.text, candidate.passage) for each in sets for candidate in each.candidates)
        pairs = [(query, passage_text(passage.title, passage.text)) for query, passage in passages]
        scores: list[float] = self._model.predict(pairs, batch_size=BATCH_PAIRS, show_progress_bar=False).tolist()
        return scores
