"""The forward passes of the backend `transformers`: token sequences in, log-probabilities out, in float32.

A group's common prefix is computed once and its keys and values are kept until the next group, which continues
from as much of them as it shares. What follows the prefix is one batch, padded on the right: a causal model does not
look to the right, so the padding changes nothing and needs no mask of its own. Only the rows that are read go
through the model's head: a vocabulary is some hundred times wider than a hidden state.

The head is computed in float32 whatever the model's dtype: a logit of 20 in bfloat16 is rounded to steps of 0.125,
and two grades that differ by less would be equal. Where the model's own dtype is bfloat16, so are the factors of that
product, and a processor's bfloat16 instructions, which add up in float32, compute it twice as fast (logits differ by
less than 1e-4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from qrelay.llm.prefixes import WORTHWHILE_TOKENS, Group, TokenQuery, common, groups

_HEAD_ROWS = 256
"""Rows whose log-softmax over the vocabulary is computed at once: 150 MB in float32 with 150 000 tokens."""


class Forward:
    """Computes with one causal language model. Use from one thread; see the module."""

    def __init__(self, model: Any, *, batch_tokens: int, prefix_cache: bool = True) -> None:
        """model: of transformers, in evaluation mode. batch_tokens: of one batch, padding included.
        prefix_cache: off only to measure what it brings."""
        from transformers import DynamicCache

        self._model = _with_exact_head(model)
        self._batch_tokens = batch_tokens
        self.prefix_cache = prefix_cache
        self._plain_cache = is_plain(DynamicCache(config=model.config))
        self._kept_ids: tuple[int, ...] = ()
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def logprobs(self, queries: Sequence[TokenQuery]) -> Iterator[list[torch.Tensor]]:
        """For each group of `queries`, in order: a tensor a query, shape (wanted positions, vocabulary), natural
        log-probabilities in float32 of the token after each wanted position, on the CPU."""
        for group in groups(queries, self._batch_tokens):
            with torch.inference_mode():
                yield self._group(queries[group.start : group.stop], group)

    def forget(self) -> None:
        """Free the kept prefix."""
        self._kept_ids, self._kept = (), []

    def _group(self, queries: Sequence[TokenQuery], group: Group) -> list[torch.Tensor]:
        if not (self.prefix_cache and self._plain_cache):
            return self._rows(queries, 0)
        if len(queries) == 1:  # its whole length is kept: the next call may share more of it than this one's prefix
            return self._rows(queries, self._recall(queries[0].ids[: queries[0].shareable]), keep=True)
        prefix = queries[0].ids[: group.prefix]
        known = self._recall(prefix)
        if known < len(prefix):
            cache = self._cache(1)
            self._run([prefix[known:]], cache, [])
            self._keep(prefix, cache)
        return self._rows(queries, len(prefix))

    def _recall(self, prefix: tuple[int, ...]) -> int:
        """Cut what is kept down to what `prefix` shares with it; its length."""
        shared = common(self._kept_ids, prefix)
        shared = shared if shared >= WORTHWHILE_TOKENS else 0
        self._kept_ids = self._kept_ids[:shared]
        self._kept = (
            [(keys[..., :shared, :], values[..., :shared, :]) for keys, values in self._kept] if shared else []
        )
        return shared

    def _keep(self, ids: tuple[int, ...], cache: Any) -> None:
        self._kept_ids = ids
        self._kept = [(layer.keys, layer.values) for layer in cache.layers]

    def _cache(self, rows: int) -> Any:
        """A cache for this many rows that holds the kept prefix, which it does not change: it grows by copying."""
        from transformers import DynamicCache

        expanded = [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in self._kept]
        return DynamicCache(expanded) if expanded else DynamicCache(config=self._model.config)

    def _rows(self, queries: Sequence[TokenQuery], known: int, *, keep: bool = False) -> list[torch.Tensor]:
        cache = self._cache(len(queries)) if known or keep else None
        places = [(row, at - known) for row, query in enumerate(queries) for at in query.wanted]
        read = self._run([query.ids[known:] for query in queries], cache, places)
        if keep:
            self._keep(queries[0].ids, cache)
        return list(torch.split(read, [len(query.wanted) for query in queries]))

    def _run(self, rows: Sequence[tuple[int, ...]], cache: Any, places: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Log-probabilities at `places`, (row, column) each: shape (places, vocabulary)."""
        device = self._model.device
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        with _only(self._model.get_output_embeddings(), places, device):
            logits = self._model(input_ids=ids, past_key_values=cache, use_cache=cache is not None).logits[0]
        pieces = [torch.log_softmax(piece.float(), dim=-1).cpu() for piece in torch.split(logits, _HEAD_ROWS)]
        return torch.cat(pieces)


@contextmanager
def _only(head: torch.nn.Module, places: Sequence[tuple[int, int]], device: Any) -> Iterator[None]:
    """While it lasts, the head sees the hidden states at `places` only, as one row: (1, places, hidden size)."""
    at = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 2)

    def gather(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0][at[:, 0], at[:, 1]].unsqueeze(0), *given[1:])

    hook = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()


def _with_exact_head(model: Any) -> Any:
    """The model with a float32 copy of its head; input embeddings, which may be the same tensor, stay."""
    old = model.get_output_embeddings()
    if old.weight.dtype == torch.float32:
        return model
    head = torch.nn.Linear(old.in_features, old.out_features, bias=old.bias is not None, device="meta")
    for name, values in old.named_parameters():
        setattr(head, name, torch.nn.Parameter(values.detach().float(), requires_grad=False))
    head.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
    if old.weight.dtype == torch.bfloat16:
        head.register_forward_pre_hook(lambda *_: _multiply_by("bf16"))
        head.register_forward_hook(lambda *_: _multiply_by("none"), always_call=True)
    model.set_output_embeddings(head)
    return model


def _multiply_by(precision: str) -> None:
    """What oneDNN may round the factors of float32 products to. Around the head only: rotary angles need them all."""
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]


def is_plain(cache: Any) -> bool:
    """Whether every layer keeps all keys and values, so that a prefix can be cut out (no window, no state)."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)
