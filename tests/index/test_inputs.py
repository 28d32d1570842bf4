"""What corpora of the world bring: NUL, endless words, other scripts, ids and titles too long; and old indexes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import CorpusIndexError
from qrelay.index.build import BuildRequest, BuildResult, bounded, build_index
from qrelay.index.documents import MAX_ID_CHARS, MAX_TITLE_CHARS
from qrelay.index.manifest import MANIFEST, read_manifest
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.types import BM25, CandidateSet, Passage, Query
from tests.index.documents import made_up

Build = Callable[..., BuildResult]

CHINESE = {
    "z0": "糖尿病患者应该控制饮食并经常锻炼以降低血糖水平。",
    "z1": "高血压的常见症状包括头痛和头晕。",
    "z2": "感冒通常由病毒引起，抗生素无效。",
    "z3": "骨质疏松症会使骨骼变脆。",
    "z4": "阿司匹林可以抑制血小板聚集。",
    "z5": "维生素C缺乏会导致坏血病。",
}
THAI = {
    "t0": "ผู้ป่วยโรคเบาหวานควรควบคุมอาหารและออกกำลังกายอย่างสม่ำเสมอเพื่อลดระดับน้ำตาลในเลือด",
    "t1": "แอสไพรินยับยั้งการเกาะกลุ่มของเกล็ดเลือด",
    "t2": "ไข้หวัดเกิดจากไวรัสและยาปฏิชีวนะไม่ได้ผล",
    "t3": "โรคกระดูกพรุนทำให้กระดูกเปราะ",
}
JAPANESE = {
    "j0": "糖尿病の患者は食事を管理し、運動して血糖値を下げるべきです。",
    "j1": "アスピリンは血小板の凝集を抑えます。",
    "j2": "風邪はウイルスが原因で、抗生物質は効きません。",
}
KHMER = {"k0": "អ្នកជំងឺទឹកនោមផ្អែមគួរគ្រប់គ្រងអាហារ", "k1": "អាស្ពីរីនរារាំងការកកឈាម", "k2": "ជំងឺផ្តាសាយបង្កដោយវីរុស"}
LAO = {"l0": "ຄົນເຈັບເບົາຫວານຄວນຄວບຄຸມອາຫານ", "l1": "ໄຂ້ຫວັດເກີດຈາກໄວຣັດ", "l2": "ກະດູກພຸນເຮັດໃຫ້ກະດູກແຕກງ່າຍ"}
HINDI = {"h0": "मधुमेह के रोगियों को आहार पर नियंत्रण रखना चाहिए", "h1": "उच्च रक्तचाप के लक्षण सिरदर्द और चक्कर हैं"}


def warnings(result: BuildResult) -> list[str]:
    return [remark for remark in result.remarks() if remark.startswith("warning")]


def rows(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"_id": doc_id, "title": "", "text": text} for doc_id, text in texts.items()]


def passages(result: BuildResult) -> list[Passage]:
    store = PassageStore(result.folder)
    return store.passages(np.arange(len(store)))


def first_by_bm25(retriever: Retriever, text: str) -> str:
    (found,) = retriever.retrieve([Query("q", text, "tiny")])
    assert isinstance(found, CandidateSet)
    ranked = {score.rank: c.passage.doc_id for c in found.candidates if (score := c.score(BM25)) and score.rank}
    return ranked.get(1, "nothing")


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (CHINESE, {"糖尿病如何降低血糖": "z0", "高血压有什么症状": "z1", "阿司匹林有什么作用": "z4", "脆": "z3"}),
        (THAI, {"ผู้ป่วยโรคเบาหวานควรควบคุมอาหารอย่างไร": "t0", "แอสไพรินมีผลต่อเกล็ดเลือดอย่างไร": "t1"}),
        (JAPANESE, {"血糖値を下げるには": "j0", "アスピリンの作用": "j1", "風邪の原因": "j2"}),
        (KHMER, {"ទឹកនោមផ្អែម": "k0", "វីរុស": "k2"}),
        (LAO, {"ເບົາຫວານ": "l0", "ໄວຣັດ": "l1"}),
        (HINDI, {"मधुमेह": "h0", "रक्तचाप के लक्षण": "h1"}),
    ],
    ids=["Chinese", "Thai", "Japanese", "Khmer", "Lao", "Hindi"],
)
def test_bm25_finds_in_every_script(
    build: Build, settings: RetrieverSettings, texts: dict[str, str], asked: dict[str, str]
) -> None:
    result = build(rows(texts))
    retriever = load_retriever(settings)
    assert {text: first_by_bm25(retriever, text) for text in asked} == asked
    assert result.manifest.without_terms == 0


def test_a_build_measures_what_the_model_does_not_know_and_says_what_to_do(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minilm = load_embedder("all-MiniLM-L6-v2")
    english = build(made_up(3), by=minilm)
    assert (english.manifest.unknown_tokens, list(english.remarks())) == (0, [])
    thai = build(rows(THAI), by=minilm)
    assert thai.manifest.tokens == thai.manifest.unknown_tokens != 0
    (said,) = thai.remarks()
    assert "paraphrase-multilingual-MiniLM-L12-v2" in said
    assert "100% of the passages' tokens are unknown to all-MiniLM-L6-v2" in said
    assert "the catalogue has no multilingual one" in said
    entry = {"name": "many", "task": "embedding", "quantisation": "f32", "licence": "MIT", "multilingual": True}
    entry["files"] = [{"path": "a", "size_bytes": 1, "sha256": "0" * 64}]
    (tmp_path / "more.yaml").write_text(json.dumps({"models": [entry]}))
    monkeypatch.setenv("QRELAY_CATALOGUE", str(tmp_path / "more.yaml"))
    assert "build with a multilingual one, `--embedder many`" in next(build(rows(THAI), by=minilm).remarks())


@pytest.mark.parametrize(
    "text",
    [
        "मधुमेह के रोगियों को आहार पर नियंत्रण रखना चाहिए",
        "يجب على مرضى السكري التحكم في نظامهم الغذائي",
        "Больные диабетом должны контролировать свою диету",
        "당뇨병 환자는 식단을 조절하고 자주 운동해야 합니다",
        "Οι διαβητικοί ασθενείς πρέπει να ελέγχουν τη διατροφή τους",
    ],
    ids=["Hindi", "Arabic", "Russian", "Korean", "Greek"],
)
def test_words_that_come_apart_into_letters_are_unknown_too(build: Build, text: str) -> None:
    """MiniLM has the letters of these alphabets and none of their words: it knows each token and says nothing."""
    (said,) = warnings(build(rows({"d": text}), by=load_embedder("all-MiniLM-L6-v2")))
    assert "are unknown to all-MiniLM-L6-v2" in said


def test_words_of_latin_letters_with_accents_are_known(build: Build) -> None:
    text = "Diabetiker sollten ihre Ernährung prüfen: bệnh nhân tiểu đường nên kiểm soát chế độ ăn, naïve café, 5 µm"
    result = build(rows({"d": text}), by=load_embedder("all-MiniLM-L6-v2"))
    assert (result.manifest.unknown_tokens, warnings(result)) == (0, [])


def test_passages_without_a_term_are_counted_and_warned_of(build: Build) -> None:
    result = build([*made_up(9), {"_id": "x", "title": "", "text": "— ☞ … ☜ —"}])
    assert result.manifest.without_terms == 1
    assert list(result.remarks()) == ["warning: 5% of the passages have no term by which BM25 could find them"]


def test_nul_in_titles_and_texts_becomes_a_replacement_character_and_is_counted(build: Build) -> None:
    result = build([{"_id": "d", "title": "a\0b", "text": "one \0 two\0"}, {"_id": "n\0", "title": "", "text": "x"}])
    assert [(each.title, each.text) for each in passages(result)] == [("a\ufffdb", "one \ufffd two\ufffd")]
    assert list(result.remarks()) == ["3 NUL characters in titles and texts are U+FFFD now"]
    assert result.rejected == 1 and "holds a NUL character" in result.examples[0]


def test_a_passage_is_bounded_in_characters_and_loses_nothing(build: Build) -> None:
    endless = "0123456789" * 20_000
    result = build([{"_id": "dump", "title": "", "text": f"cat dog {endless}"}, *made_up(2)])
    limit = 16 * 40
    own = [each.text for each in passages(result) if each.doc_id == "dump"]
    assert max(map(len, own)) == limit
    assert "".join(own) == f"cat dog {endless}"
    assert result.manifest.windows_cut == len(own) - 1
    assert f"times a passage was cut at {limit} characters" in next(result.remarks())


def test_only_what_is_too_long_is_cut() -> None:
    assert bounded(["abc", ""], 3) == (["abc", ""], 0)
    assert bounded(["abcd ef", "g"], 3) == (["abc", "d e", "f", "g"], 2)


def test_a_title_that_is_in_every_passage_is_cut_and_said(build: Build) -> None:
    result = build([{"_id": "d", "title": "t" * (MAX_TITLE_CHARS + 1), "text": "x"}])
    assert [len(each.title) for each in passages(result)] == [MAX_TITLE_CHARS]
    assert "1 titles were longer than" in next(result.remarks())


def test_an_id_that_no_database_can_index_is_left_out(build: Build) -> None:
    result = build([{"_id": "i" * (MAX_ID_CHARS + 1), "title": "", "text": "x"}, *made_up(1)])
    assert result.manifest.documents == result.rejected == 1
    assert f"the limit is {MAX_ID_CHARS}" in result.examples[0]


def test_the_figures_survive_a_build_that_is_found_finished(build: Build) -> None:
    texts = rows(THAI)
    first, again = build(texts), build(texts)
    assert again.already
    assert again.manifest == first.manifest


def as_first(folder: Path, tokenizer: str) -> None:
    """The manifest as it would be with another tokenizer, and without what was not measured then."""
    told = json.loads((folder / MANIFEST).read_bytes())
    told["parameters"] |= {"bm25_tokenizer": tokenizer}
    for name in ("tokens", "unknown_tokens", "without_terms", "windows_cut"):
        del told[name]
    (folder / MANIFEST).write_text(json.dumps(told))


def test_an_index_of_an_earlier_tokenizer_is_searched_with_that_one(
    build: Build, settings: RetrieverSettings, embedder: Embedder
) -> None:
    result = build(made_up(20))
    new = first_by_bm25(load_retriever(settings), "word3 word7")
    as_first(result.folder, "alnum-lower-stop_en-snowball_en")
    old = load_retriever(settings)
    assert first_by_bm25(old, "word3 word7") == new
    assert old.info().details["collection.tiny.bm25_tokenizer"] == "alnum-lower-stop_en-snowball_en"
    assert read_manifest(result.folder).unknown_tokens is None


def test_an_index_of_an_unknown_tokenizer_is_refused_with_the_command_that_rebuilds_it(
    build: Build, settings: RetrieverSettings, tmp_path: Path
) -> None:
    result = build(made_up(3))
    as_first(result.folder, "of tomorrow")
    with pytest.raises(
        CorpusIndexError, match=r"'of tomorrow'.*`qrelay index build .*tiny\.jsonl --collection tiny --out "
    ):
        load_retriever(settings)


def test_a_model_whose_vectors_are_no_numbers_builds_no_index(build: Build, tmp_path: Path) -> None:
    import torch

    from qrelay.errors import ModelError

    broken = load_embedder("all-MiniLM-L6-v2")
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no number"):
        build(made_up(3), by=broken)
    shutil.rmtree(tmp_path / "index")


def test_a_corpus_of_lists_and_synonyms_is_read(tmp_path: Path, embedder: Embedder) -> None:
    lines = [
        {"docno": 7, "title": None, "contents": ["first part", "second part"]},
        {"pid": "p8", "text": "", "content": "under another name"},
        {"id": "d9", "title": "only a title", "text": None},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = build_index(BuildRequest(str(tmp_path / "c.jsonl"), "c", tmp_path / "index"), embedder, print)
    assert [(each.doc_id, each.text) for each in passages(result)] == [
        ("7", "first part\nsecond part"),
        ("p8", "under another name"),
        ("d9", "only a title"),
    ]
