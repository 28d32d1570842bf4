"""The words and terms of texts in every script."""

from __future__ import annotations

import re

import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st

from qrelay.terms import LANGUAGES, TOKENIZER, language_of, named_tokenizer, tokenize, tokenizer_of
from qrelay.words import units, words


def terms_of(name: str, text: str) -> list[str]:
    tokenizer = named_tokenizer(name)
    assert tokenizer is not None
    return tokenizer(text)


FIRST = "alnum-lower-stop_en-snowball_en"


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_terms_of_ascii_are_those_of_the_first_indexes(text: str) -> None:
    found = [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in set(STOPWORDS_EN)]
    assert tokenize(text) == terms_of(FIRST, text) == Stemmer.Stemmer("english").stemWords(found)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("糖尿病type2", ["糖", "尿", "病", "糖尿", "尿病", "type2"]),
        ("水", ["水"]),
        ("血糖，血压", ["血", "糖", "血糖", "血", "压", "血压"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー", "コー", "ーヒ", "ヒー"]),
        ("학교에", ["학", "교", "에", "학교", "교에"]),
        ("น้ำ", ["น้", "ำ", "น้ำ"]),
        ("ที่ดี", ["ที่", "ดี", "ที่ดี"]),
        ("ຈັບ", ["ຈັ", "ບ", "ຈັບ"]),
        ("ជំងឺ", ["ជំ", "ងឺ", "ជំងឺ"]),
        ("မာရေး", ["မာ", "ရေး", "မာရေး"]),
        ("मधुमेह के रोगियों", ["मधुमेह", "के", "रोगियों"]),
        ("பள்ளி நீரிழிவு", ["பள்ளி", "நீரிழிவு"]),
        ("كِتاب", ["كتاب"]),
        ("שָׁלוֹם", ["שלום"]),
        ("Ελλάδα Москва", ["ελλάδα", "москва"]),
    ],
)
def test_a_script_without_blanks_gives_characters_and_their_pairs_and_every_character_keeps_its_marks(
    text: str, terms: list[str]
) -> None:
    assert tokenize(text) == terms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cafe\u0301", "café"),
        ("ＡＢＣ１２", "abc12"),
        ("ｶﾞｽ", "ガス"),
        ("infor\u00admation", "information"),
        ("می\u200cخواهم", "میخواهم"),
        ("가", "\u1100\u1161"),
    ],
)
def test_two_ways_to_write_a_word_are_one_term(one: str, other: str) -> None:
    assert tokenize(one) == tokenize(other)


def test_units_split_only_what_has_no_blanks() -> None:
    assert units("read_text") == ["read_text"]
    assert units("維生素C3") == ["維", "生", "素", "C3"]
    assert words("snake_case, “naïve” 糖尿病。") == ["snake_case", "naïve", "糖尿病"]


def test_every_text_has_its_units_whole() -> None:
    for word in ("糖尿病type2", "मधुमेह", "ที่ดี", "naïve", "👍"):
        assert "".join(units(word)) == word


def test_the_tokenizer_of_new_indexes_is_among_the_known_ones() -> None:
    assert TOKENIZER == "words-bigrams-lower-stop_en-snowball_en"
    assert terms_of(TOKENIZER, "The running dogs, 糖尿") == tokenize("The running dogs, 糖尿")
    assert named_tokenizer(FIRST) is not None and named_tokenizer("words-bigrams-lower-stop_xx-snowball_en") is None


@pytest.mark.parametrize("language", [*LANGUAGES, "any"])
def test_each_language_has_a_tokenizer_of_its_own_name(language: str) -> None:
    name = tokenizer_of(language)
    assert language_of(name) == language
    assert terms_of(name, "Abc 12")


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("de", "Die Häuser und der Hund", ["haus", "hund"]),
        ("fr", "les chevaux de l'école", ["cheval", "écol"]),
        ("fi", "talossa", ["talo"]),
        ("any", "The Running Dogs", ["the", "running", "dogs"]),
    ],
)
def test_a_language_has_its_stemmer_and_its_stop_words(language: str, text: str, terms: list[str]) -> None:
    assert tokenize(text, language) == terms
