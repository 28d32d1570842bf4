"""The shipped rubrics: the prompts and the identities that they had before they were files."""

from __future__ import annotations

import hashlib
import json

import pytest

from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.chat import Shot
from qrelay.judging.strategies.utility import ListUtility
from qrelay.types import Passage

HASHES = {
    ("binary", "0-1"): "be489681f2e17a7b57b2bba66a5b7adf5a224301c589d5d42b13dbe2355b54eb",
    ("graded", "0-3"): "a4fe54d766d78827ebb4e6b6ae71f9dd2c52b1026783f58da99cfa24b604aef1",
    ("graded", "1-4"): "aed3fdb33fa0958fd7604aa9b97c289104e59e4279e41f691943e8e0a265f504",
    ("utility", "0-1"): "a068a544023e2e4e40dd1145c3e71c1cd9d47e96f122069000ba923baf2c6254",
    ("query_likelihood", "0-3"): "5943e0259d202c474d793b05c20b4733995bcd6452440426c99ca198a9bd2843",
    ("contrastive_likelihood", "0-1"): "81bbb0763c5b38c83b714d448ef98627e4dcd788412a1dc4b222aee4f62cc8b1",
    ("confirmed_likelihood", "0-3"): "db1f27f59a958c3961d2cb8f05910bb92ff87b682c3495db91b32217cea49159",
    ("answer_nll", "0-1"): "322f0d80cd45571e604b68b559981d7b12cb22160408a808ad59dc5738df049f",
}
"""Of every label that was ever stored: these never change."""
WITH_A_SHOT = {
    ("binary", "0-1", "YES"): (
        "a5cc1cd418a1f348c0fee3c5de72e5e300d9673ef708d41360baec9ceef33535",
        "c454be1ecb015c9a8d4f50248331a7d7697b1de7d455ea5e5660dc956505cd4d",
    ),
    ("graded", "0-3", "3"): (
        "51e74eef98d9fa830c410d922a8fc9fd433a1e8820cc3963f4e928af0d80ac22",
        "542602a929d147d505912c201b8a621d95374c1a4fd0de5649102512ad47dcf3",
    ),
    ("graded", "1-4", "4"): (
        "00c92f7312edf0e3e5f19dc5c83120a628792b7c75ed5387e89f3a54f8d885a8",
        "bd0dc7545be6421e4dca40ffe3ef3c6ed6ebe26ff27459de8a3da50f729bb58d",
    ),
}


@pytest.mark.parametrize("asked", HASHES, ids="-".join)
def test_prompt_hashes_and_names_are_those_of_the_labels_that_exist(asked: tuple[str, str]) -> None:
    strategy, scale = asked
    spec = make_strategy(strategy, scale).spec
    assert (spec.name, spec.scale.name, spec.prompt_hash) == (strategy, scale, HASHES[asked])


def test_the_ranking_of_utility_keeps_its_prompt_hash() -> None:
    assert ListUtility("ranking").spec.prompt_hash.startswith("0dc492a7ed754787d4d36ddc71d1d5d6")


@pytest.mark.parametrize("asked", WITH_A_SHOT, ids="-".join)
def test_every_character_of_the_chat_is_what_it_was(asked: tuple[str, str, str]) -> None:
    name, scale, label = asked
    strategy = make_strategy(name, scale, shots=[Shot("An example?", "T", "A passage.", label)])
    chat = strategy.prompt("How?", Passage("", "", "A title", "Some text")).messages()
    read = hashlib.sha256(json.dumps(chat).encode()).hexdigest()
    assert (strategy.spec.prompt_hash, read) == WITH_A_SHOT[asked]
