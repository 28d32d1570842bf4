"""Every format is read back by the library that is meant to read it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import InputError
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.splits import parse_splits
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import (
    BI_ENCODER,
    BM25,
    CROSS_ENCODER,
    DENSE,
    SYSTEMS,
    Candidate,
    JudgedSet,
    Missing,
    Passage,
    Score,
)
from tests.labels.builders import graded, judged_set
from tests.labels.exporting import export_file

RULES = MiningRules(guard_ratio=1.0, negative_rank=10, easy_per_hard=0)
QUERIES = 8
OUTCOMES = (graded(3), graded(0), Missing("timeout"), graded(1), graded(2), graded(0))


def rich_set(number: int) -> JudgedSet:
    """Six passages by all four systems, with ties, ranks without a score, and white space to trip over."""
    record = judged_set(f"q{number}", f"what\tis number\n{number}?", OUTCOMES, prefix=f"doc{number}-")
    candidates = tuple(
        dataclasses.replace(each, passage=_awkward(each.passage), scores=_scores(place, number))
        for place, each in enumerate(record.candidate_set.candidates)
    )
    return dataclasses.replace(record, candidate_set=dataclasses.replace(record.candidate_set, candidates=candidates))


def _awkward(passage: Passage) -> Passage:
    text = f'{passage.text}\tsays "{passage.doc_id}"\r\nand more' if passage.text else ""
    return dataclasses.replace(passage, text=text)


def _scores(place: int, number: int) -> tuple[Score, ...]:
    return (
        Score(BM25, 7.5, place + 1),  # all tied
        Score(DENSE, 0.9 - place / 10, place + 1 if place < 3 else 0),
        Score(CROSS_ENCODER, -1.5 - (place + number) % 3, (place * 5) % 7 + 1),
        Score(BI_ENCODER, None, place + 1),
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Reading back depends on no database, so that one will do."""
    ledger = Ledger.open(tmp_path_factory.mktemp("formats") / "ledger.sqlite")
    ledger.commit([rich_set(number) for number in range(QUERIES)])
    yield ledger
    ledger.close()


def write(ledger: Ledger, kind: str, path: Path, **choices: Any) -> dict[str, Any]:
    return export_file(ledger, "docs", kind, path, **{"rules": RULES, "unmeasured": True, **choices})


def json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def parquet(path: Path) -> Any:
    import datasets

    cache = str(path.parent / "cache")
    return datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=cache)


def test_runs_and_qrels_are_evaluated_alike_by_pytrec_eval_and_ir_measures(filled: Ledger, tmp_path: Path) -> None:
    import ir_measures
    import pytrec_eval

    write(filled, "qrels", tmp_path / "qrels")
    write(filled, "runs", tmp_path / "runs")
    with (tmp_path / "qrels").open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    for system in SYSTEMS:
        path = tmp_path / "runs" / f"{system}.run"
        with path.open() as file:
            run = pytrec_eval.parse_run(file)
        found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
        mean = sum(each["ndcg_cut_10"] for each in found.values()) / QUERIES
        measured: Any = ir_measures.calc_aggregate(
            [ir_measures.nDCG @ 10],
            ir_measures.read_trec_qrels(str(tmp_path / "qrels")),  # type: ignore[no-untyped-call]
            ir_measures.read_trec_run(str(path)),  # type: ignore[no-untyped-call]
        )
        assert 0 < mean <= 1
        assert measured[ir_measures.nDCG @ 10] == pytest.approx(mean)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_keeps_the_order_of_ranks_for_tools_that_sort_by_single_precision_scores(
    filled: Ledger, tmp_path: Path, system: str
) -> None:
    import numpy as np

    write(filled, "run", tmp_path / "run", options=Options(system=system))
    lines = [line.split(" ") for line in (tmp_path / "run").read_text().splitlines()]
    for number in range(QUERIES):
        mine = [line for line in lines if line[0] == f"q{number}"]
        ranked = sorted(
            (score.rank, each.passage.passage_id)
            for each in rich_set(number).candidate_set.candidates
            for score in each.scores
            if score.system == system and score.rank > 0
        )
        assert [line[2] for line in mine] == [passage_id for _, passage_id in ranked]
        assert [int(line[3]) for line in mine] == list(range(1, len(ranked) + 1))
        scores = np.array([line[4] for line in mine], dtype=np.float32)
        assert (np.diff(scores) < 0).all()
    assert {line[5] for line in lines} == {system}


def test_a_score_that_falls_is_written_as_it_is() -> None:
    from qrelay.labels.exports.formats.run import falling

    assert falling([Score(BM25, 3.5, 1), Score(BM25, 2.25, 2), Score(BM25, -1.0, 3)]) == [3.5, 2.25, -1.0]
    assert falling([Score(BM25, None, 1), Score(BM25, None, 4)]) == [1.0, 0.5]


def test_a_run_needs_a_system_and_takes_no_condition_on_labels(filled: Ledger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--system"):
        write(filled, "run", tmp_path / "run")
    with pytest.raises(InputError, match="no labels"):
        write(filled, "runs", tmp_path / "runs", where="grade=2")
    assert write(filled, "runs", tmp_path / "runs", where="query_id=q3")["queries"] == 1


def test_the_beir_folder_is_complete_and_each_passage_is_there_once(filled: Ledger, tmp_path: Path) -> None:
    import datasets

    manifest = write(filled, "beir", tmp_path / "beir")
    folder, cache = tmp_path / "beir", str(tmp_path / "cache")
    corpus = datasets.load_dataset("json", data_files=str(folder / "corpus.jsonl"), split="train", cache_dir=cache)
    queries = datasets.load_dataset("json", data_files=str(folder / "queries.jsonl"), split="train", cache_dir=cache)
    with (folder / "qrels" / "test.tsv").open(newline="") as file:
        qrels = list(csv.DictReader(file, delimiter="\t"))
    assert len(corpus) == len(set(corpus["_id"])) == manifest["notes"]["passages"] == QUERIES * 5
    assert set(corpus.column_names) == {"_id", "title", "text"}
    assert {row["query-id"] for row in qrels} == set(queries["_id"]) == {f"q{n}" for n in range(QUERIES)}
    assert {row["corpus-id"] for row in qrels} == set(corpus["_id"])
    assert [row["score"] for row in qrels if row["query-id"] == "q0"] == ["3", "0", "1", "2", "0"]


def test_a_passage_with_two_texts_keeps_the_first_and_says_so(tmp_path: Path, sqlite_ledger: Ledger) -> None:
    other = rich_set(1)
    changed = tuple(
        dataclasses.replace(each, passage=dataclasses.replace(each.passage, text=f"{each.passage.text}, revised"))
        if each.sampled
        else each
        for each in rich_set(0).candidate_set.candidates
    )
    again = dataclasses.replace(other.candidate_set, candidates=changed)
    judgments = rich_set(0).judgments
    sqlite_ledger.commit([rich_set(0), dataclasses.replace(other, candidate_set=again, judgments=judgments)])
    manifest = write(sqlite_ledger, "beir", tmp_path / "beir")
    assert manifest["notes"] == {"passages": 5, "passages_with_another_text": 5}
    assert "revised" not in (tmp_path / "beir" / "corpus.jsonl").read_text()


@pytest.mark.parametrize("folder", ["", "train/"])
def test_ir_datasets_reads_its_folder(filled: Ledger, tmp_path: Path, folder: str) -> None:
    import ir_datasets

    splits = parse_splits("train=1") if folder else None
    write(filled, "ir_datasets", tmp_path / "d", splits=splits)
    files = {"docs_tsv": "docs.tsv", "queries_tsv": f"{folder}queries.tsv", "qrels_trec": f"{folder}qrels.txt"}
    assert all(f'{name}="{path}"' in (tmp_path / "d" / "README.md").read_text() for name, path in files.items())
    dataset = ir_datasets.create_dataset(**{name: str(tmp_path / "d" / path) for name, path in files.items()})
    docs = {doc.doc_id: doc.text for doc in dataset.docs_iter()}
    assert {query.query_id: query.text for query in dataset.queries_iter()}["q0"] == "what is number 0?"
    qrels = list(dataset.qrels_iter())
    assert len(qrels) == len(docs) == QUERIES * 5
    assert {qrel.doc_id for qrel in qrels} == set(docs)
    assert docs["doc0-0#0"] == 'title of doc0-0 text 0 of doc0-0 says "doc0-0" and more'


def test_msmarco_texts_and_ids_are_the_same_triples_without_a_stray_tab(filled: Ledger, tmp_path: Path) -> None:
    rows = write(filled, "msmarco", tmp_path / "texts.tsv")["rows"]
    assert write(filled, "msmarco-ids", tmp_path / "ids.tsv")["rows"] == rows > QUERIES
    with (tmp_path / "texts.tsv").open(newline="") as file:
        texts = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    ids = [line.split("\t") for line in (tmp_path / "ids.tsv").read_text().splitlines()]
    assert len(texts) == rows
    for (query, *passages), (query_id, *passage_ids) in zip(texts, ids, strict=True):
        assert query == f"what is number {query_id[1:]}?"
        for text, passage_id in zip(passages, passage_ids, strict=True):
            assert f'says "{passage_id.split("#")[0]}"' in text


def test_msmarco_is_read_by_datasets(filled: Ledger, tmp_path: Path) -> None:
    import datasets

    rows = write(filled, "msmarco", tmp_path / "texts.tsv")["rows"]
    names = ["query", "positive", "negative"]
    options = {"delimiter": "\t", "column_names": names, "quoting": csv.QUOTE_NONE}
    loaded = datasets.load_dataset(
        "csv", data_files=str(tmp_path / "texts.tsv"), split="train", cache_dir=str(tmp_path / "c"), **options
    )
    assert (len(loaded), loaded.column_names) == (rows, names)
    assert loaded["query"][0] == "what is number 0?"


def test_tevatron_rows_have_its_fields(filled: Ledger, tmp_path: Path) -> None:
    import datasets

    write(filled, "tevatron", tmp_path / "t.jsonl")
    path = str(tmp_path / "t.jsonl")
    loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "c"))
    assert set(loaded.column_names) == {"query_id", "query", "positive_passages", "negative_passages"}
    first = loaded[0]
    assert [each["docid"] for each in first["positive_passages"]] == ["doc0-0#0", "doc0-4#0"]
    assert {frozenset(each) for each in first["negative_passages"]} == {frozenset({"docid", "title", "text"})}


def test_tevatrons_scores_stand_where_its_distillation_reads_them(filled: Ledger, tmp_path: Path) -> None:
    plain = write(filled, "tevatron", tmp_path / "plain.jsonl")
    scored = write(filled, "tevatron", tmp_path / "t.jsonl", options=Options(scores=True))
    assert plain["rows"] == scored["rows"]
    assert scored["selection"]["options"] == {"scores": True}
    for line, bare in zip(json_lines(tmp_path / "t.jsonl"), json_lines(tmp_path / "plain.jsonl"), strict=True):
        positives, negatives = line["positive_passages"], line["negative_passages"]
        assert min(each["score"] for each in positives) > max(each["score"] for each in negatives)
        bared = [{name: each[name] for name in each if name != "score"} for each in positives]
        assert bared == bare["positive_passages"]


def test_tevatrons_second_version_finds_every_id_in_the_corpus(filled: Ledger, tmp_path: Path) -> None:
    import datasets

    write(filled, "tevatron-v2", tmp_path / "v2")
    cache = str(tmp_path / "c")
    train, corpus = (
        datasets.load_dataset("json", data_files=str(tmp_path / "v2" / name), split="train", cache_dir=cache)
        for name in ("train.jsonl", "corpus.jsonl")
    )
    # As TrainDataset of tevatron/retriever/dataset.py reads them.
    index = {docid: place for place, docid in enumerate(corpus["docid"])}
    assert len(index) == len(corpus)
    for group in train:
        assert group["query_text"].split()[:3] == ["what", "is", "number"]
        for docid in (*group["positive_document_ids"], *group["negative_document_ids"]):
            assert f'says "{docid.split("#")[0]}"' in corpus[index[docid]]["text"]


def test_tevatrons_second_version_may_have_scores_beside_its_ids(filled: Ledger, tmp_path: Path) -> None:
    write(filled, "tevatron-v2", tmp_path / "v2", options=Options(scores=True))
    for row in json_lines(tmp_path / "v2" / "train.jsonl"):
        assert len(row["positive_document_scores"]) == len(row["positive_document_ids"])
        assert len(row["negative_document_scores"]) == len(row["negative_document_ids"])


def test_flagembeddings_rows_are_what_its_data_set_reads(filled: Ledger, tmp_path: Path) -> None:
    import datasets

    write(filled, "flagembedding", tmp_path / "f.jsonl")
    path = str(tmp_path / "f.jsonl")
    loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "c"))
    assert "prompt" not in loaded.column_names  # it would take the place of the trainer's own instruction
    for data in loaded:  # as AbsEmbedderTrainDataset.__getitem__ of abc/finetune/embedder/AbsDataset.py reads it
        assert len(data["pos"]) == len(data["pos_scores"]) == len(data["pos_id"])
        assert len(data["neg"]) == len(data["neg_scores"]) == len(data["neg_id"])
        assert all(isinstance(each, float) for each in (*data["pos_scores"], *data["neg_scores"]))


def test_flagembeddings_own_reader_takes_the_file(filled: Ledger, tmp_path: Path) -> None:
    """Where the package can be imported: its readers need nothing that is not here (`pip install --no-deps --target
    FOLDER FlagEmbedding`, and the folder at the end of PYTHONPATH)."""
    module = pytest.importorskip("FlagEmbedding.abc.finetune.embedder.AbsDataset")
    arguments = pytest.importorskip("FlagEmbedding.abc.finetune.embedder.AbsArguments")
    write(filled, "flagembedding", tmp_path / "f.jsonl")
    args = arguments.AbsEmbedderDataArguments(
        train_data=[str(tmp_path / "f.jsonl")],
        cache_path=str(tmp_path / "c"),
        train_group_size=3,
        knowledge_distillation=True,
    )
    found = module.AbsEmbedderTrainDataset(args, tokenizer=None)
    query, passages, scores = found[0]
    assert query.split() == ["what", "is", "number", "0?"]
    assert (len(passages), len(scores)) == (3, 3)
    assert scores[0] > max(scores[1:])


def test_scores_are_refused_where_there_is_no_place_for_them(filled: Ledger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"msmarco takes no --scores.*tevatron"):
        write(filled, "msmarco", tmp_path / "m.tsv", options=Options(scores=True))


def test_the_hugging_face_folder_is_loaded_by_its_card(filled: Ledger, tmp_path: Path) -> None:
    import datasets
    from huggingface_hub import DatasetCard

    splits = parse_splits("train=0.6,test=0.4")
    options = Options(license="cc-by-4.0")
    manifest = write(filled, "hf", tmp_path / "hf", splits=splits, options=options)
    loaded = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: split["rows"] for name, split in manifest["splits"].items()
    }
    row = next(each for each in loaded["train"] if each["query_id"] == loaded["train"][0]["query_id"])
    assert set(row["positives"][0]) == {"passage_id", "doc_id", "title", "text", "grade", "p_relevant", "reason"}
    card = DatasetCard.load(tmp_path / "hf" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pretty_name == "docs"
    for words in ("judge-1.5b@r1:q4", "**unknown**", '"negative_threshold": 0.4', f"{manifest['rows']} queries"):
        assert words in card.text


def test_a_card_without_a_licence_says_that_none_was_given(filled: Ledger, tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    write(filled, "hf", tmp_path / "hf")
    card = DatasetCard.load(tmp_path / "hf" / "README.md")
    assert card.data.license is None
    assert "None was given" in card.text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of two layers and random weights that tokenises words; built here, nothing is fetched."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "is", "number", "text", "of", "says"]
    raw = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    folder = tmp_path_factory.mktemp("tiny")
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bi_encoder_loss(tiny: Path, loss: str, dataset: Any) -> float:
    """The loss of the first batch, as sentence-transformers' trainer takes it from these columns."""
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    module = Transformer(str(tiny))
    model = SentenceTransformer(modules=[module, Pooling(8)], device="cpu")
    return first_loss(SentenceTransformerTrainer, model, getattr(losses, loss)(model), dataset, tiny)


def first_loss(trainer_class: Any, model: Any, loss: Any, dataset: Any, folder: Path) -> float:
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

    kind = (
        CrossEncoderTrainingArguments
        if trainer_class is CrossEncoderTrainer
        else SentenceTransformerTrainingArguments
    )
    arguments = kind(output_dir=str(folder / "out"), use_cpu=True, dataloader_pin_memory=False, report_to="none")
    trainer = trainer_class(model=model, train_dataset=dataset, loss=loss, args=arguments)
    batch = next(iter(trainer.get_train_dataloader()))
    return float(trainer.compute_loss(model, batch).detach())


@pytest.mark.parametrize(
    ("kind", "loss", "columns"),
    [
        ("st-triplet", "MultipleNegativesRankingLoss", ["anchor", "positive", "negative"]),
        ("st-triplet", "TripletLoss", ["anchor", "positive", "negative"]),
        ("st-ntuple", "MultipleNegativesRankingLoss", ["anchor", "positive", "negative_1", "negative_2"]),
        ("st-pairs", "CoSENTLoss", ["sentence1", "sentence2", "score"]),
        ("st-triplet", "MarginMSELoss", ["anchor", "positive", "negative", "scores"]),
        ("st-ntuple", "MarginMSELoss", ["anchor", "positive", "negative_1", "negative_2", "scores"]),
        ("st-ntuple", "DistillKLDivLoss", ["anchor", "positive", "negative_1", "negative_2", "scores"]),
    ],
)
def test_sentence_transformers_takes_the_columns_as_a_losss_input(
    filled: Ledger, tmp_path: Path, tiny: Path, kind: str, loss: str, columns: list[str]
) -> None:
    options = Options(negatives=2, scores="scores" in columns)
    manifest = write(filled, kind, tmp_path / "p.parquet", options=options)
    dataset = parquet(tmp_path / "p.parquet")
    assert (dataset.column_names, len(dataset)) == (columns, manifest["rows"])
    assert bi_encoder_loss(tiny, loss, dataset) > 0


def test_sentence_transformers_cross_encoder_takes_labeled_lists(filled: Ledger, tmp_path: Path, tiny: Path) -> None:
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    write(filled, "st-labeled-list", tmp_path / "p.parquet")
    dataset = parquet(tmp_path / "p.parquet")
    assert dataset.column_names == ["query", "docs", "labels"]
    assert dataset[0]["labels"] == [3.0, 2.0, 1.0, 0.0, 0.0]
    assert 'says "doc0-0"' in dataset[0]["docs"][0]
    model = CrossEncoder(str(tiny), num_labels=1, device="cpu")
    assert first_loss(CrossEncoderTrainer, model, ListNetLoss(model), dataset, tiny) > 0


def test_pairs_carry_the_judges_probability_and_triplets_every_pair(filled: Ledger, tmp_path: Path) -> None:
    write(filled, "st-pairs", tmp_path / "pairs.parquet")
    scores = parquet(tmp_path / "pairs.parquet")["score"][:5]
    assert scores == pytest.approx([0.95, 0.05, 0.2, 0.8, 0.05])
    assert write(filled, "triples", tmp_path / "t")["rows"] == QUERIES
    lines = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    pairs = sum(len(each["positives"]) * len(each["negatives"]) for each in lines)
    assert write(filled, "st-triplet", tmp_path / "triplet.parquet")["rows"] == pairs


def test_an_ntuple_that_cannot_be_filled_is_counted_not_padded(filled: Ledger, tmp_path: Path) -> None:
    manifest = write(filled, "st-ntuple", tmp_path / "p.parquet", options=Options(negatives=9))
    assert (manifest["rows"], manifest["notes"]) == (0, {"too_few_negatives": QUERIES})
    with pytest.raises(InputError, match=rf"too few negatives: {QUERIES} queries.*--negatives"):
        write(filled, "st-ntuple", tmp_path / "q", options=Options(negatives=9), allow_empty=False)


def test_a_list_of_one_grade_is_counted_and_left_out(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=[graded(1), graded(1)]), judged_set("q2")])
    manifest = write(sqlite_ledger, "st-labeled-list", tmp_path / "p")
    assert (manifest["rows"], manifest["notes"]) == (1, {"one_grade_only": 1})


@pytest.mark.parametrize("kind", [name for name, each in FORMATS.items() if not each.folder])
def test_a_format_of_one_file_becomes_a_file_a_split(filled: Ledger, tmp_path: Path, kind: str) -> None:
    options = Options(negatives=1, system=BM25)
    whole = write(filled, kind, tmp_path / "whole", options=options)
    manifest = write(filled, kind, tmp_path / "split", splits=parse_splits("a=0.5,b=0.5"), options=options)
    suffix = FORMATS[kind].suffix
    assert sorted(manifest["files"]) == [f"a{suffix}", f"b{suffix}"]
    assert sum(each["rows"] for each in manifest["splits"].values()) == manifest["rows"] == whole["rows"]


def test_the_text_of_a_passage_is_what_the_retriever_reads() -> None:
    from qrelay.labels.exports.rows import text_of

    candidate = Candidate(Passage("d#0", "d", "Title", "the text"), ())
    assert text_of(candidate.passage) == "Title\nthe text"
