"""What `qrelay relabel` writes is read by the library that the format is of.

FlagEmbedding and Tevatron are not installed here. Where their packages can be imported, their own readers read the
file (`pip install --no-deps --target FOLDER FlagEmbedding tevatron`, and the folder at the end of PYTHONPATH; the
readers need nothing else that is not here). Everywhere a test takes from the rows what these readers take: Tevatron's
TrainDataset and DistilTrainDataset (src/tevatron/retriever/dataset.py of its version 2), FlagEmbedding's
AbsEmbedderTrainDataset (abc/finetune/embedder/AbsDataset.py).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from qrelay.formats.beir import read_collection
from qrelay.formats.training.detect import open_training_set
from qrelay.labels.permission import Allowed, Usage
from qrelay.labels.qualification import NO_REPORT
from qrelay.labels.relabel.relabel import Relabel
from qrelay.labels.relabel.rules import Rules
from tests.formats.test_training_sets import FLAG, LIST, TEVATRON, TUPLE, beir, jsonl
from tests.labels.test_export_formats import bi_encoder_loss, first_loss, tiny
from tests.labels.test_relabel import Fixed

__all__ = ["tiny"]
SCORES = {"p": 0.9, "n1": 0.8, "n2": 0.1, "text 0": 0.9, "text 1": 0.1, "text 2": 0.8, "text 3": 0.1, "text 4": 0.1}


async def cleaned(source: Path, out: Path, rules: Rules | None = None, **options: Any) -> Path:
    found = open_training_set(str(source), **options)
    usage = Usage(NO_REPORT, Allowed(unmeasured=True))
    try:
        await Relabel(found, Fixed(SCORES), rules or Rules(), out=out, usage=usage).run()
    finally:
        found.close()
    return out


def loaded(path: Path, kind: str = "json", **options: Any) -> Any:
    import datasets

    cache = str(path.parent / "cache")
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache, **options)


async def test_flagembedding_reads_scores_beside_its_passages(tmp_path: Path) -> None:
    path = await cleaned(jsonl(tmp_path, FLAG, FLAG), tmp_path / "out.jsonl")
    (data, _) = loaded(path)
    assert (data["pos"], data["pos_scores"]) == (["p"], [0.9])
    assert (data["neg"], data["neg_scores"], data["neg_id"]) == (["n2"], [0.1], [8])
    assert (data["prompt"], data["type"]) == ("Find: ", "normal")


async def test_flagembeddings_own_reader_takes_the_file(tmp_path: Path) -> None:
    module = pytest.importorskip("FlagEmbedding.abc.finetune.embedder.AbsDataset")
    arguments = pytest.importorskip("FlagEmbedding.abc.finetune.embedder.AbsArguments")
    path = await cleaned(jsonl(tmp_path, FLAG), tmp_path / "out.jsonl")
    args = arguments.AbsEmbedderDataArguments(
        train_data=[str(path)], cache_path=str(tmp_path / "c"), train_group_size=3, knowledge_distillation=True
    )
    assert module.AbsEmbedderTrainDataset(args, tokenizer=None)[0] == ("q", ["p", "n2", "n2"], [0.9, 0.1, 0.1])


async def test_tevatron_reads_a_score_within_each_passage(tmp_path: Path) -> None:
    path = await cleaned(jsonl(tmp_path, TEVATRON), tmp_path / "out.jsonl")
    (group,) = loaded(path)
    (positive,), (negative,) = group["positive_passages"], group["negative_passages"]
    assert (positive["title"] + " " + positive["text"], positive["score"]) == ("t p", 0.9)
    assert (negative["docid"], negative["text"], negative["score"]) == ("d3", "n2", 0.1)
    assert (group["query"], group["subset"]) == ("q", "nq")


async def test_tevatrons_own_preprocessor_takes_the_rows(tmp_path: Path) -> None:
    module = pytest.importorskip("tevatron.datasets.preprocessor")
    row = {**TEVATRON, "negative_passages": [{"docid": "d3", "title": "", "text": "n2"}]}
    path = await cleaned(jsonl(tmp_path, row), tmp_path / "out.jsonl")

    class Letters:
        def encode(self, text: str, **_: Any) -> list[int]:
            return [ord(letter) for letter in text]

    found = module.TrainPreProcessor(Letters())(loaded(path)[0])
    assert found["positives"] == [[ord(letter) for letter in "t p"]]


async def test_tevatrons_second_version_reads_ids_of_its_corpus(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path, *({"docid": f"d{n}", "text": f"text {n}"} for n in range(4)), name="corpus.jsonl")
    ids = {"query_id": "1", "query_text": "q", "positive_document_ids": ["d0"], "negative_document_ids": ["d2", "d1"]}
    path = await cleaned(jsonl(tmp_path, ids), tmp_path / "out.jsonl", corpus=corpus)
    (group,), documents = loaded(path), loaded(corpus)
    place = {docid: number for number, docid in enumerate(documents["docid"])}
    assert [documents[place[each]]["text"] for each in group["negative_document_ids"]] == ["text 1"]
    assert group["query_text"] == "q"


@pytest.mark.parametrize("loss", ["MultipleNegativesRankingLoss", "MarginMSELoss", "DistillKLDivLoss"])
async def test_sentence_transformers_trains_on_ntuples_with_their_scores(
    tmp_path: Path, tiny: Path, loss: str
) -> None:
    path = await cleaned(jsonl(tmp_path, TUPLE, TUPLE), tmp_path / "out.jsonl")
    dataset = loaded(path)
    assert dataset.column_names == ["anchor", "positive", "negative_1", "negative_2", "scores"]
    assert dataset[0]["scores"] == [0.9, 0.1, 0.1]
    assert bi_encoder_loss(tiny, loss, dataset) >= 0


async def test_a_parquet_of_triplets_is_a_parquet_of_triplets(tmp_path: Path, tiny: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"anchor": "q", "positive": "p", "negative": each} for each in ("n1", "n2")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    path = await cleaned(tmp_path / "in.parquet", tmp_path / "out.parquet", Rules(negatives="promote"))
    dataset = loaded(path, "parquet")
    assert [(row["negative"], row["scores"]) for row in dataset] == [("n2", [0.9, 0.1])]
    assert bi_encoder_loss(tiny, "MarginMSELoss", dataset) >= 0


async def test_sentence_transformers_trains_on_labeled_lists_of_scores(tmp_path: Path, tiny: Path) -> None:
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    path = await cleaned(jsonl(tmp_path, LIST), tmp_path / "out.jsonl", scores="labels")
    dataset = loaded(path)
    assert (dataset[0]["docs"], dataset[0]["labels"]) == (["p", "n2"], [0.9, 0.1])
    model = CrossEncoder(str(tiny), num_labels=1, device="cpu")
    assert first_loss(CrossEncoderTrainer, model, ListNetLoss(model), dataset, tiny) > 0


async def test_ms_marcos_triples_are_three_columns(tmp_path: Path) -> None:
    (tmp_path / "triples.tsv").write_text("q\tp\tn1\nq\tp\tn2\n")
    path = await cleaned(tmp_path / "triples.tsv", tmp_path / "out.tsv")
    names = ["query", "positive", "negative"]
    options = {"delimiter": "\t", "column_names": names, "quoting": csv.QUOTE_NONE}
    assert loaded(path, "csv", **options)[:] == {"query": ["q"], "positive": ["p"], "negative": ["n2"]}


async def test_a_beir_folder_is_a_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    out = await cleaned(beir(tmp_path / "in"), tmp_path / "out", Rules(negatives="promote"))
    found = read_collection(out / "corpus.jsonl", out / "queries.jsonl", out / "qrels" / "train.tsv")
    assert found.qrels == {"q1": {"d0": 2, "d2": 1, "d1": 0}}
    (hard,) = loaded(out / "hard_negatives.jsonl")
    assert (hard["qid"], hard["neg"]) == ("q1", ["d3"])
