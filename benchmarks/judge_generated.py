"""A judge trained without people: a cross-encoder on questions that a model wrote of the collection's own passages.

    python -m benchmarks.judge_generated liveqa-med --passages 128 --work W --vectors FOLDER

After InPars (Bonifacio et al. 2022, https://arxiv.org/abs/2202.05144) and GPL (Wang et al. 2022,
https://arxiv.org/abs/2112.07577). The 0.5B writes a question of each drawn passage; a question stays where
all-mpnet-base-v2 brings its passage back among the first three. Beside its passage stand four others that
all-MiniLM-L6-v2 ranks high for it. Each pair's target is the log-odds of an ensemble, the 0.5B's likelihood and
mpnet's cosine, whose map is fitted on the other collection's grades. MiniLM's body, lower half frozen, is trained on
these by squared error. Every step's result is kept in --work, and the command goes on where it was stopped. More
--passages begin with those of fewer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.judge_student import folds_of, halves, pairs_of
from benchmarks.judge_student_table import table
from benchmarks.judge_table import MINILM, MPNET, Kept
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.qualification.table import Table
from qrelay.judging.querygen.faults import Faults
from qrelay.judging.querygen.prompt import chat, read_question
from qrelay.judging.strategies.likelihood import nll, question
from qrelay.llm.base import Weights
from qrelay.llm.prefixes import common
from qrelay.llm.transformers import TransformersBackend
from qrelay.models.catalogue import resolve
from qrelay.stats.calibration import Logistic
from qrelay.text import passage_text
from qrelay.types import Passage

WRITER: Final = "qwen2.5-coder-0.5b-instruct"
NEGATIVES: Final = 4
BACK: Final = 3  # a question must bring its passage back among so many
BATCH: Final = 16


def passage_of(pair: GradedPair) -> Passage:
    """What is judged."""
    return Passage(pair.passage_id, pair.passage_id, pair.title, pair.text)


def pool_of(name: str, pairs: Sequence[GradedPair]) -> list[Passage]:
    """The different passages of the collection (LLMJudge: of half A), in an order drawn by chance."""
    rows = list(range(len(pairs))) if name == "liveqa-med" else halves(pairs)[0]
    once = {passage_text(pairs[n].title, pairs[n].text): passage_of(pairs[n]) for n in rows}
    texts = random.Random(0).sample(sorted(once), len(once))
    return [once[text] for text in texts]


def writer() -> TransformersBackend:
    """The 0.5B on one thread."""
    found = resolve(WRITER)
    return TransformersBackend(found.path, Weights(WRITER, found.revision, ""), threads=1)


def written(passages: Sequence[Passage], kept: dict[str, str], path: Path) -> dict[str, str]:
    """Passage id -> its question, "" where none is of use; asked where `kept` lacks it, with the product's prompt."""
    lacking = sorted((each for each in passages if each.passage_id not in kept), key=lambda each: len(each.text))
    if not lacking:
        return kept
    backend, faults = writer(), Faults()
    model, tokens = backend._model, backend._tokens  # the loop below is no service's way to ask
    prompts: dict[str, Any] = {each.passage_id: tokens.of_chat(chat(each).as_messages(), room=48) for each in lacking}
    for text in filter(None, kept.values()):
        faults.remember(text)
    started = time.process_time()
    first = prompts[lacking[0].passage_id].ids
    shots = list(first[: min(common(first, each.ids) for each in prompts.values()) - 1])
    with torch.inference_mode():
        prefix = model(torch.tensor([shots]), use_cache=True).past_key_values
    for start in range(0, len(lacking), 24):
        part = lacking[start : start + 24]
        replies = batch_of_replies(model, tokens, [prompts[each.passage_id].ids for each in part], shots, prefix)
        for each, reply in zip(part, replies, strict=True):
            text = read_question(reply)
            kept[each.passage_id] = "" if faults.find(text, each) else text
            if kept[each.passage_id]:
                faults.remember(text)
        path.write_text(json.dumps(kept))
        print(f"written {len(kept)}, {time.process_time() - started:.0f} s of processor", flush=True)
    backend.close()
    return kept


def batch_of_replies(
    model: Any, tokens: Any, prompts: Sequence[Sequence[int]], shots: list[int], prefix: Any
) -> list[str]:
    """Greedy replies; what all prompts share was computed once."""
    from transformers import DynamicCache

    rows = [list(prompt[len(shots) :]) for prompt in prompts]
    width = max(map(len, rows))
    ids = torch.tensor([[*shots, *[0] * (width - len(row)), *row] for row in rows])
    mask = torch.tensor([[1] * len(shots) + [0] * (width - len(row)) + [1] * len(row) for row in rows])
    at = (mask.cumsum(1) - 1)[:, len(shots) :]
    size = (len(rows), -1, -1, -1)
    cache = DynamicCache([(each.keys.expand(size), each.values.expand(size)) for each in prefix.layers])
    ends = set(tokens.ends(model.generation_config.eos_token_id))
    said: list[list[int]] = [[] for _ in rows]
    given, open_rows = ids[:, len(shots) :], set(range(len(rows)))
    with torch.inference_mode():
        for _ in range(40):
            hidden = model.model(
                input_ids=given, attention_mask=mask, position_ids=at, past_key_values=cache, use_cache=True
            )[0]
            given = model.lm_head(hidden[:, -1].to(model.lm_head.weight.dtype)).argmax(-1, keepdim=True)
            for row in list(open_rows):
                if (token := int(given[row, 0])) in ends:
                    open_rows.discard(row)
                else:
                    said[row].append(token)
            if not open_rows:
                break
            mask, at = torch.cat([mask, torch.ones_like(given)], 1), at[:, -1:] + 1
    return [tokens.text(each) for each in said]


def lists(
    pairs: Sequence[GradedPair],
    passages: Sequence[Passage],
    whole: Sequence[Passage],
    questions: dict[str, str],
    vectors: Path,
) -> list[dict[str, Any]]:
    """Each question that brings its passage back among `whole`, with its passage and hard negatives of `passages`:
    ids and mpnet's cosines."""
    everything = list(dict.fromkeys(passage_text(pair.title, pair.text) for pair in pairs))
    places = {text: number for number, text in enumerate(everything)}
    at = [places[passage_text(each.title, each.text)] for each in whole]
    asked = {n: questions[each.passage_id] for n, each in enumerate(passages) if questions.get(each.passage_id)}
    cosines: dict[str, Any] = {}
    for model in (MINILM, MPNET):
        embedder = Kept(model, vectors, "openvino")
        queries = embedder.encode(list(asked.values()), "query")
        cosines[model] = queries @ embedder.encode(everything, "document")[at].T
    found = []
    for row, (own, text) in enumerate(asked.items()):
        if (cosines[MPNET][row] > cosines[MPNET][row, own] + 1e-6).sum() >= BACK:
            continue
        near = np.argsort(-cosines[MINILM][row, : len(passages)])
        numbers = [own, *[int(n) for n in near if n != own][:NEGATIVES]]
        ids = [passages[n].passage_id for n in numbers]
        found.append({"query": text, "ids": ids, "cosines": [float(cosines[MPNET][row, n]) for n in numbers]})
    return found


def gains(
    asked: Sequence[dict[str, Any]], passages: Sequence[Passage], kept: dict[str, float], path: Path
) -> dict[str, float]:
    """`id query` -> the 0.5B's gain in nats a token. A passage is read once for all its questions."""
    by_id = {each.passage_id: each for each in passages}
    wanted: dict[str, list[str]] = {}
    for each in asked:
        for one in each["ids"]:
            if f"{one} {each['query']}" not in kept:
                wanted.setdefault(one, []).append(each["query"])
    if not wanted:
        return kept
    backend, started = writer(), time.process_time()

    def ask(texts: Sequence[str], passage: Passage | None) -> list[float]:
        replies: Any = asyncio.run(backend.loglikelihood([question(text, passage) for text in texts]))
        return [nll(each) for each in replies]

    queries = sorted({text for each in wanted.values() for text in each})
    alone = dict(zip(queries, ask(queries, None), strict=True))
    for number, (one, texts) in enumerate(wanted.items()):
        given = zip(texts, ask(texts, by_id[one]), strict=True)
        kept |= {f"{one} {text}": alone[text] - said for text, said in given}
        if number % 16 == 15 or number == len(wanted) - 1:
            path.write_text(json.dumps(kept))
            print(f"gains {number + 1}/{len(wanted)}, {time.process_time() - started:.0f} s of processor", flush=True)
    backend.close()
    return kept


def targets(
    asked: Sequence[dict[str, Any]], passages: Sequence[Passage], told: dict[str, float], known: Table
) -> list[tuple[str, str, float]]:
    """(query, text, log-odds of the ensemble) of each pair; the map is fitted on the grades of `known`."""
    inputs = np.column_stack([known.column("0.5B"), known.column(f"dense:{MPNET}")])
    fitted = Logistic.fit(inputs, known.relevant)
    texts = {each.passage_id: passage_text(each.title, each.text) for each in passages}
    pairs = [
        (each["query"], one, cosine)
        for each in asked
        for one, cosine in zip(each["ids"], each["cosines"], strict=True)
    ]
    p = fitted.predict([[told[f"{one} {query}"], cosine] for query, one, cosine in pairs])
    odds = np.log(p / (1 - p)).tolist()
    return [(query, texts[one], each) for (query, one, _), each in zip(pairs, odds, strict=True)]


def trained(rows: Sequence[tuple[str, str, float]], epochs: int, rate: float) -> Any:
    """A CrossEncoder: MiniLM's body with one output, embeddings and lower half frozen, squared error to the targets.
    Neighbours in length are a batch, batches in random order."""
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    model = CrossEncoder(str(resolve(MINILM).path), num_labels=1, max_length=200, device="cpu")
    body: Any = model.model
    body.bert.embeddings.requires_grad_(False)
    body.bert.encoder.layer[:3].requires_grad_(False)
    nn.init.constant_(body.classifier.bias, float(np.mean([target for *_, target in rows])))
    optimiser = torch.optim.AdamW([each for each in body.parameters() if each.requires_grad], lr=rate)
    order, steps = random.Random(0), epochs * -(-len(rows) // BATCH)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min(1, (n + 1) / 10) * (1 - n / steps))
    body.train()
    for epoch in range(epochs):
        mixed = sorted(order.sample(list(rows), len(rows)), key=lambda row: len(row[1]) // 200)
        parts = [mixed[start : start + BATCH] for start in range(0, len(mixed), BATCH)]
        losses = []
        for part in order.sample(parts, len(parts)):
            loss = loss_of(model, part)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, {time.process_time():.0f} s of processor", flush=True)
    return model


def loss_of(model: Any, rows: Sequence[tuple[str, str, float]]) -> torch.Tensor:
    """Mean squared error over the rows."""
    queries, texts, wanted = zip(*rows, strict=True)
    how = {"truncation": "only_second", "max_length": 200, "padding": True, "return_tensors": "pt"}
    given = model.tokenizer(queries, texts, **how)
    with torch.autocast("cpu", torch.bfloat16):
        said = model.model(**given).logits[:, 0].float()
    return nn.functional.mse_loss(said, torch.tensor(wanted))


def scores(model: Any, pairs: Sequence[GradedPair], rows: Sequence[int]) -> dict[str, float]:
    """Row -> log-odds."""
    asked = [(pairs[n].query, passage_text(pairs[n].title, pairs[n].text)) for n in rows]
    with torch.autocast("cpu", torch.bfloat16):
        said = model.predict(asked, activation_fn=nn.Identity(), show_progress_bar=False)
    return {str(n): float(score) for n, score in zip(rows, said, strict=True)}


def kept(what: str, options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """What a step left before, and where."""
    path = options.work / f"{what}-{options.collection}.json"
    return (json.loads(path.read_text()) if path.exists() else {}), path


def run(options: argparse.Namespace) -> None:
    """All steps."""
    pairs = pairs_of(options.collection, options.data)
    whole = pool_of(options.collection, pairs)
    passages = whole[: options.passages]
    questions = written(passages, *kept("questions", options))
    asked = lists(pairs, passages, whole, questions, options.vectors)
    told = gains(asked, passages, *kept("gains", options))
    asked_of = sum(bool(questions[each.passage_id]) for each in passages)
    print(f"{len(passages)} passages, {asked_of} questions, {len(asked)} brought back", flush=True)
    said, path = kept("generated", options)
    name = f"{options.passages}-{options.epochs}-{options.rate}-{options.most}"
    if name in said:
        return
    other = "llmjudge-dl23" if options.collection == "liveqa-med" else "liveqa-med"
    model = trained(targets(asked, passages, told, table(other, options)), options.epochs, options.rate)
    test = sorted({n for _, part in folds_of(options.collection, pairs, 0, options.most) for n in part})
    said[name] = {"questions": len(asked), "scores": scores(model, pairs, test)}
    path.write_text(json.dumps(said))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True, help="Folder of passages' vectors, as of judge_table.")
    parser.add_argument("--cache", default=".qrelay/judge-cache.sqlite")
    parser.add_argument("--passages", type=int, default=128)
    parser.add_argument("--most", type=int, default=1000, help="Pairs a query that are scored.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-4)
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
