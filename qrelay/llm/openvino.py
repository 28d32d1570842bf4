"""`openvino`: a causal language model with 8-bit weights in this process, for processors without bfloat16.

    score          as the backend `transformers`, but without a prefix cache: every prompt is read whole
    loglikelihood  as the backend `transformers`

Where the processor multiplies integers (AVX-512 VNNI, AVX VNNI, ARM dot products) activations are quantised too,
which is what makes it fast; elsewhere the weights are unpacked as they are read, which saves memory more than time.
Both are in the decoding, as probabilities differ by some thousandths. The model's copy is made once
(`openvino_model`), memory-mapped and shared by processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qrelay.llm.base import TOP_LOGPROBS, Weights
from qrelay.llm.in_process import InProcess
from qrelay.llm.openvino_model import GRAPH, openvino_folder
from qrelay.llm.prefixes import TokenQuery, padded_batches
from qrelay.llm.tokens import Tokens
from qrelay.models.openvino import Compiled, activations
from qrelay.models.prepared import require_memory_for
from qrelay.progress import step


class OpenVinoBackend(InProcess):
    """See the module. One worker thread of its own answers the calls in the order they came."""

    _remedy = "lower judge.openvino.batch_tokens"

    def __init__(
        self,
        path: Path,
        weights: Weights,
        *,
        threads: int = 0,
        context_tokens: int = 4096,
        batch_tokens: int = 2048,
        smaller: str = "",
    ) -> None:
        """Load the folder or GGUF at `path`, converted once.

        threads: of the CPU, 0 leaves OpenVINO's choice. context_tokens: of one question. batch_tokens: computed at
        once, padding included. smaller: what to do where there is no room to convert.

        Raises:
            ModelError: OpenVINO is not installed, the weights cannot be converted, or memory or disk are too small.
        """
        self.weights = weights
        load = partial(self._load, path, threads, context_tokens, batch_tokens, smaller)
        self._start("openvino", load)

    def _load(self, path: Path, threads: int, context_tokens: int, batch_tokens: int, smaller: str) -> None:
        folder = openvino_folder(path, self.weights.revision, smaller=smaller)
        require_memory_for(folder, f"{self.weights.model} in 8 bits", smaller)
        self._tokens = Tokens.load(folder, context_tokens, "raise judge.openvino.context_tokens")
        with step(f"loading {self.weights.model} in 8 bits"):
            self._rows = OpenVinoRows(folder / GRAPH, threads=threads, batch_tokens=batch_tokens)
        engine = f"engine=openvino;weights=int8;activations={activations()}"
        self._decodings = self._tokens.decodings(engine, top=f"{TOP_LOGPROBS}+labels", generates=False)


class OpenVinoRows:
    """The forward passes; see `in_process.Rows`. Neighbours of one width are a batch, padded on the right, where a
    causal model does not look."""

    def __init__(self, graph: Path, *, threads: int, batch_tokens: int) -> None:
        """Compiles, and runs once, so that the first question waits for no layout of weights."""
        self._model = Compiled(graph, threads=threads)
        self._batch_tokens = batch_tokens
        for _ in self.logprobs([TokenQuery((0, 0), range(1))]):
            pass

    def logprobs(self, queries: Sequence[TokenQuery]) -> Iterator[list[Any]]:
        """Tensors of log-probabilities, a group after the other."""
        import torch

        for batch, width in padded_batches(queries, self._batch_tokens):
            rows = torch.from_numpy(self._run(batch, width))
            yield list(torch.split(rows, [len(query.wanted) for query in batch]))

    def _run(self, queries: Sequence[TokenQuery], width: int) -> Any:
        """Log-probabilities at every wanted position of every query: shape (positions, vocabulary)."""
        ids = np.zeros((len(queries), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, query in enumerate(queries):
            ids[row, : len(query.ids)], mask[row, : len(query.ids)] = query.ids, 1
        places = np.array([row * width + at for row, query in enumerate(queries) for at in query.wanted])
        return self._model({"input_ids": ids, "attention_mask": mask, "places": places})

    def forget(self) -> None:
        """Nothing is kept between calls."""
