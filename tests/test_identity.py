"""Identities change with every field that matters, and with nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from qrelay.identity import digest, feed_message_id, judge_digest, judgment_key, valid_collection
from qrelay.runtime.dead_letters import message_id
from qrelay.types import Query
from tests.samples import JUDGE


@given(st.lists(st.text()), st.lists(st.text()))
def test_different_field_lists_never_share_a_digest(left: list[str], right: list[str]) -> None:
    assert (digest(*left) == digest(*right)) == (left == right)


def test_every_field_of_a_judge_is_part_of_its_identity() -> None:
    for field in fields(JUDGE):
        changed = replace(JUDGE, **{field.name: getattr(JUDGE, field.name) + "x"})
        assert judge_digest(changed) != judge_digest(JUDGE), field.name


def test_query_title_text_and_judge_are_part_of_a_judgment_key() -> None:
    key = judgment_key("q", "t", "p", "j")
    others = [("Q", "t", "p", "j"), ("q", "T", "p", "j"), ("q", "t", "P", "j"), ("q", "t", "p", "J")]
    assert len({key, *(judgment_key(*other) for other in others)}) == 5


def test_a_later_round_has_message_ids_of_its_own_and_round_0_those_from_before_there_were_rounds() -> None:
    first = Query("q1", "a question", "docs")
    ids = {(feed_message_id(each), message_id("retriever", each, "")) for each in (first, replace(first, round=1))}
    assert len({one for pair in ids for one in pair}) == 4
    assert feed_message_id(first) == "3200bdeaa238e1b8624f30878e9965606bd53e26"
    assert message_id("retriever", first, "") == "ad66aac508335f8b185293768284a6ec3f11ad45"


def test_a_collection_is_a_subject_token() -> None:
    assert valid_collection("python-docs_3")
    assert not any(valid_collection(bad) for bad in ["", "a.b", "A", "a b", "-a", "x" * 65, "*", ">"])
