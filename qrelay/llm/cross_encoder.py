"""`cross-encoder`: a model that reads query and passage together, as a judge. `qrelay train --experiment judge` makes
one of people's grades; any cross-encoder of sentence-transformers with one output will do.

Its one output is taken as the log-odds of the passage being relevant. Trained with binary cross-entropy (`bce`) that
is what it is; of a model that was trained to rank it is a score, and a map makes a probability of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qrelay.errors import ModelError, QrelayError
from qrelay.llm.base import Local, Weights, used_after_close
from qrelay.llm.exchange import PAIR_SCORES, Pair, PairScore
from qrelay.models.encoding import pair_length
from qrelay.models.engines import EncoderEngine, fingerprint
from qrelay.models.loading import load_encoder
from qrelay.models.pairs import PairModel
from qrelay.models.records import ResolvedModel


class CrossEncoderBackend(Local):
    """See the module. What is longer than the model reads is cut off, as in the reranker."""

    def __init__(
        self,
        model: ResolvedModel,
        *,
        engine: EncoderEngine = "torch",
        threads: int = 0,
        device: str = "",
        max_length: int = 0,
        batch_pairs: int = 32,
    ) -> None:
        """max_length: tokens of a pair at most; 0: as many as the model reads. batch_pairs: computed at once.

        Raises:
            ModelError: it cannot be loaded or converted, or has more than one output.
        """
        length = pair_length(model.path, max_length)
        loaded = load_encoder("CrossEncoder", model, length, engine=engine, threads=threads, device=device)
        if loaded.num_labels != 1:
            raise ModelError(
                f"{model.name} has {loaded.num_labels} outputs: a judge needs a cross-encoder with one, such as "
                "`qrelay train --experiment judge` makes"
            )
        self.weights = Weights(model.name, fingerprint(model.revision, engine), model.quantisation)
        self._decodings = {PAIR_SCORES: f"cross-encoder;tokens={length}"}
        self._model: PairModel | None = PairModel(loaded, batch_pairs)

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        """One score a pair. Raises InternalError after `close`."""
        return await asyncio.to_thread(self._scores, pairs) if pairs else []

    def _scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        from torch.nn import Identity

        model = self._model
        if model is None:
            raise used_after_close()
        said = model.scores([(pair.query, pair.passage) for pair in pairs], Identity())
        return [PairScore(float(each), self._decodings[PAIR_SCORES]) for each in said]

    def close(self) -> None:
        """Free the model, when the running calls have ended."""
        self._model = None
