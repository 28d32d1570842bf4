"""What a GPU does with each model, beside its bare library, by turns: embeddings, cross-encoder pairs, judge pairs.

    qrelay models pull all-MiniLM-L6-v2 qwen2.5-coder-0.5b-instruct
    python -m benchmarks.gpu [embedder cross_encoder judge] [--out gpu.json]    # about 8 minutes on one GPU
    python -m benchmarks.gpu --short                                            # 2 minutes: fewer items and rounds
    pip install 'qrelay[judge-vllm]' && python -m benchmarks.gpu vllm           # the judge in vLLM beside vLLM alone
    python -m benchmarks.gpu --tiny                                             # on a processor, tiny shapes: a trial

The embedder is all-MiniLM-L6-v2 itself. Cross-encoder and judge have random weights of a true shape (MiniLM's L6 and
Qwen2.5-7B's), which take the time of trained ones; tokenizers are real. Passages are of 160 words. What is measured
is what the services call, without queue and gRPC: `python -m benchmarks.references` measures those.
`python -m benchmarks.capacity plan --gpu gpu.json` plans with the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.references.reranker import MAX_LENGTH, make_cross_encoder
from benchmarks.references.turns import Comparison, Turn, by_turns
from qrelay import wire
from qrelay.bench.data import Generated
from qrelay.bench.environment import environment
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import TOP_LOGPROBS, Backend, Weights
from qrelay.llm.exchange import Prompt
from qrelay.llm.weights_folder import weights_folder
from qrelay.models.catalogue import resolve
from qrelay.text import passage_text
from qrelay.types import CandidateSet

EMBEDDER, TOKENIZER = "all-MiniLM-L6-v2", "qwen2.5-coder-0.5b-instruct"
SHAPES = {
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2},
}  # fmt: skip
JUDGED, BATCH, BATCH_TOKENS, SEQUENCES, MEMORY = 25, 128, 32_768, 256, 0.4
"""Passages of a query; pairs of a batch; tokens of one of the judge's; vLLM's pairs at once and share of memory."""
_STRATEGY: Any = make_strategy("binary", "0-1")


@dataclass(frozen=True, slots=True)
class Size:
    """Queries of a round, and rounds that count."""

    queries: int
    rounds: int
    shape: str
    batch_tokens: int = BATCH_TOKENS


WHOLE, SHORT, TINY = Size(40, 7, "7B"), Size(10, 3, "7B"), Size(1, 2, "tiny", 2048)


@cache
def sets(kind: str, items: range) -> list[CandidateSet]:
    """Made sets: 100 candidates ("retrieved"), or 40 of which 25 are judged ("reranked")."""
    source = Generated(kind)
    return [wire.from_proto(source.item(number)) for number in items]


@cache
def texts(items: range) -> list[str]:
    """The passages of sets."""
    found = (candidate.passage for each in sets("retrieved", items) for candidate in each.candidates)
    return [passage_text(each.title, each.text) for each in found]


def compared(
    what: str, library: str, unit: tuple[int, str], size: Size, made: Callable[[range], Any], ours: Turn, bare: Turn
) -> dict[str, Any]:
    """A row of the report. unit: items a query, what they are; made: makes a turn's items before any is timed."""
    each, called = unit
    for number in range(size.rounds + 1):
        made(range(number * size.queries, (number + 1) * size.queries))
    comparison = Comparison(what, library, called, size.queries)
    found = asyncio.run(by_turns(comparison, ours, bare, size.rounds)).as_json()
    low, high = found["ratio_interval"]
    return {"what": what, "library": library, "unit": f"{called}/s", "ours": each * found["service_rate"],
            "bare": each * found["library_rate"], "ratio": found["ratio"], "low": low, "high": high}  # fmt: skip


def embedder(size: Size, folder: Path) -> dict[str, Any]:
    """Passages through `Embedder.encode` and `SentenceTransformer.encode`."""
    from sentence_transformers import SentenceTransformer

    from qrelay.models.embedder import load_embedder

    ours, bare = load_embedder(EMBEDDER), SentenceTransformer(str(resolve(EMBEDDER).path), local_files_only=True)

    def with_ours(items: range) -> None:
        ours.encode(texts(items), "document")

    def with_bare(items: range) -> None:
        bare.encode(texts(items), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

    passages = (100, "passages")
    return compared("embedder", "SentenceTransformer.encode", passages, size, texts, with_ours, with_bare)


def cross_encoder(size: Size, folder: Path) -> dict[str, Any]:
    """Pairs through the reranker's scorer and `CrossEncoder.predict`."""
    from sentence_transformers import CrossEncoder

    from qrelay.services.reranker.scorers import CrossEncoderScorer

    path = make_cross_encoder(folder / "cross-encoder")
    ours = CrossEncoderScorer(f"path:{path}", max_length=MAX_LENGTH, batch_pairs=BATCH)
    bare = CrossEncoder(str(path), max_length=MAX_LENGTH, local_files_only=True)

    def with_ours(items: range) -> None:
        ours.score(sets("retrieved", items))

    def with_bare(items: range) -> None:
        found = sets("retrieved", items)
        pairs = [(each.query.text, passage_text(c.passage.title, c.passage.text)) for each in found
                 for c in each.candidates]  # fmt: skip
        bare.predict(pairs, batch_size=BATCH, show_progress_bar=False)

    made, pairs = partial(sets, "retrieved"), (100, "pairs")
    return compared("cross_encoder", "CrossEncoder.predict", pairs, size, made, with_ours, with_bare)


@cache
def prompts(items: range) -> list[Prompt]:
    """YES or NO for each passage that is judged."""
    return [
        _STRATEGY.prompt(each.query.text, candidate.passage)
        for each in sets("reranked", items)
        for candidate in each.candidates
        if candidate.sampled
    ]


def judge(size: Size, folder: Path) -> dict[str, Any]:
    """Pairs through the engine `transformers`, which reads a query's common prefix once, and a padded batch."""
    from qrelay.llm.transformers import TransformersBackend

    path = random_model(folder / "judge", size.shape)
    ours = TransformersBackend(path, Weights("random", "1", "none"), batch_tokens=size.batch_tokens)
    bare = Padded(path, size.batch_tokens)
    return judged("judge", "transformers, padded batches", size, ours, lambda items: bare.score(prompts(items)))


def vllm(size: Size, folder: Path) -> dict[str, Any]:
    """Pairs through the engine `vllm` and `vllm.LLM.chat`, each with a share of the GPU's memory."""
    from vllm import LLM, SamplingParams

    from qrelay.llm.vllm import VllmBackend

    path = random_model(folder / "judge", size.shape)
    ours = VllmBackend(path, Weights("random", "1", "none"), max_sequences=SEQUENCES, gpu_memory_utilization=MEMORY)
    bare = LLM(str(path), max_model_len=4096, max_num_seqs=SEQUENCES, gpu_memory_utilization=MEMORY)
    one = SamplingParams(max_tokens=1, temperature=0, logprobs=TOP_LOGPROBS)

    def with_bare(items: range) -> None:
        bare.chat([each.messages() for each in prompts(items)], one, use_tqdm=False)

    return judged("vllm", "vllm.LLM.chat", size, ours, with_bare)


def judged(what: str, library: str, size: Size, ours: Backend, bare: Turn) -> dict[str, Any]:
    """The row of an engine, which is closed."""

    async def with_ours(items: range) -> None:
        answers = await ours.score(prompts(items))
        if failed := [each for each in answers if isinstance(each, Exception)]:
            raise SystemExit(f"{len(failed)} of {len(answers)} pairs failed: {failed[0]}")

    try:
        return compared(what, library, (JUDGED, "pairs"), size, prompts, with_ours, bare)
    finally:
        ours.close()


class Padded:
    """transformers as its documentation shows it: prompts of a batch padded to the longest, the last logits read."""

    def __init__(self, folder: Path, batch_tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from qrelay.llm.transformers import arithmetic

        device, dtype = arithmetic("auto", "auto")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
        self._batch_tokens = batch_tokens

    def score(self, found: Sequence[Prompt]) -> None:
        """Log-probabilities of the first reply token, thrown away."""
        import torch

        asked = [self._tokenizer.apply_chat_template(each.messages(), add_generation_prompt=True, tokenize=False)
                 for each in found]  # fmt: skip
        longest = max(len(ids) for ids in self._tokenizer(asked)["input_ids"])
        rows = max(1, self._batch_tokens // longest)
        with torch.inference_mode():
            for start in range(0, len(asked), rows):
                batch = self._tokenizer(asked[start : start + rows], return_tensors="pt", padding=True)
                logits = self._model(**batch.to(self._model.device), logits_to_keep=1).logits[:, -1]
                torch.log_softmax(logits.float(), dim=-1).topk(TOP_LOGPROBS).values.cpu()


def random_model(folder: Path, shape: str) -> Path:
    """A causal language model's folder: Qwen2 of this shape with random weights, and a real tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from qrelay.llm.transformers import arithmetic

    if (folder / "config.json").exists():
        return folder
    device, dtype = arithmetic("auto", "auto")
    found = resolve(TOKENIZER)
    real = weights_folder(found.path, found.revision, dtype)
    torch.manual_seed(0)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            tokens = len(AutoTokenizer.from_pretrained(real))
            model = Qwen2ForCausalLM(Qwen2Config(vocab_size=-(-tokens // 128) * 128, **SHAPES[shape]))
    finally:
        torch.set_default_dtype(kept)
    model.save_pretrained(folder)
    for file in real.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not (folder / file.name).exists():
            shutil.copy(file, folder)
    return folder


RUNS = {"embedder": embedder, "cross_encoder": cross_encoder, "judge": judge, "vllm": vllm}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*RUNS, []], help="embedder, cross_encoder and judge by default")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    size, rows = TINY if arguments.tiny else SHORT if arguments.short else WHOLE, []
    with tempfile.TemporaryDirectory() as name:
        for what in arguments.what or [each for each in RUNS if each != "vllm"]:
            row = RUNS[what](size, Path(name))
            rows.append(row)
            print(f"{what:<14} {row['ours']:10.1f} {row['unit']} beside {row['library']} {row['bare']:10.1f}: "
                  f"{row['ratio']:.2f} of it ({row['low']:.2f} to {row['high']:.2f})", flush=True)  # fmt: skip
    if arguments.out:
        report = {"environment": environment(), "shape": size.shape, "rows": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
