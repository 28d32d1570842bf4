"""`openvino`: a causal language model with 8-bit weights in this process, for processors without bfloat16.

    score          as the backend `transformers`, but without a prefix cache: every prompt is read whole
    loglikelihood  as the backend `transformers`; the targets of a shared context are one row, which reads it once

A label depends on no other passage, to the last bit: what a question is padded to follows from the question itself,
or from the targets of its context. These are computed otherwise in one row than alone (a token's log-probability
moves as much as by another padding), so they have a decoding of their own, `context=shared`.

Where the processor multiplies integers (AVX-512 VNNI, AVX VNNI, ARM dot products) activations are quantised too,
which is what makes it fast; elsewhere the weights are unpacked as they are read, which saves memory more than time.
Both are in the decoding, as probabilities differ by some thousandths. The model's copy is made once
(`openvino_model`), memory-mapped and shared by processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qrelay.llm.base import TOP_LOGPROBS, Weights
from qrelay.llm.exchange import PROMPT_LOGPROBS, SHARED_CONTEXT
from qrelay.llm.in_process import InProcess
from qrelay.llm.openvino_model import ATTENTION_MASK, GRAPH, POSITIONS, openvino_folder
from qrelay.llm.prefixes import Row, TokenQuery, packed, padded_batches
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
        engine, top = f"engine=openvino;weights=int8;activations={activations()}", f"{TOP_LOGPROBS}+labels"
        self._decodings = self._tokens.decodings(engine, top=top, generates=False)
        if self._rows.packs:
            shared = self._tokens.decodings(f"{engine};context=shared", top=top, generates=False)
            self._decodings[SHARED_CONTEXT] = shared[PROMPT_LOGPROBS]


class OpenVinoRows:
    """The forward passes; see `in_process.Rows`. Neighbours of one width are a batch, padded on the right, where a
    causal model does not look."""

    def __init__(self, graph: Path, *, threads: int, batch_tokens: int) -> None:
        """Compiles, and runs once, so that the first question waits for no layout of weights."""
        self._model = Compiled(graph, threads=threads)
        self._batch_tokens = batch_tokens
        self.packs = POSITIONS in self._model.inputs
        """Whether the model reads rows of several sequences."""
        for _ in self.logprobs([TokenQuery((0, 0), range(1))]):
            pass

    def logprobs(self, queries: Sequence[TokenQuery]) -> Iterator[list[Any]]:
        """Tensors of log-probabilities, a group after the other."""
        import torch

        if not self.packs:
            queries = [replace(query, shared=False) for query in queries]
        for batch, width in padded_batches(packed(queries, self._batch_tokens), self._batch_tokens):
            read = torch.from_numpy(self._run(batch, width))
            yield list(torch.split(read, [len(places) for row in batch for places in row.places]))

    def _run(self, rows: Sequence[Row], width: int) -> Any:
        """Log-probabilities at every place of every row: shape (places, vocabulary)."""
        ids = np.array([_filled(row.ids, width) for row in rows], dtype=np.int64)
        places = np.array([n * width + at for n, row in enumerate(rows) for own in row.places for at in own])
        inputs = {"input_ids": ids, "places": places}
        if not self.packs:
            mask = np.array([_filled((1,) * len(row.ids), width) for row in rows], dtype=np.int64)
            return self._model(inputs | {ATTENTION_MASK: mask})
        positions = np.array([_filled(row.positions, width) for row in rows], dtype=np.int64)
        return self._model(inputs | {POSITIONS: positions, ATTENTION_MASK: _seen(rows, width)})

    def forget(self) -> None:
        """Nothing is kept between calls."""


def _filled(values: tuple[int, ...], width: int) -> tuple[int, ...]:
    return (*values, *(0,) * (width - len(values)))


def _seen(rows: Sequence[Row], width: int) -> Any:
    """Which tokens each token sees, (rows, 1, width, width): the context's and its branch's, up to itself."""
    branches = np.array([_filled(row.branches, width) for row in rows])
    alike = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    return (alike & np.tri(width, dtype=bool))[:, None]
