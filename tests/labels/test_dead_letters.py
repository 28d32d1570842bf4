"""Dead letters: recorded once, listed in pages, replayed at least once, resolved by the commit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from qrelay.errors import InputError
from qrelay.labels.ledger.ledger import Ledger
from tests.conftest import LONG_S
from tests.labels.builders import dead_letter, judged_set, later


def state(ledger: Ledger, identifier: str = "l1") -> str:
    entry = ledger.get_dead_letter(identifier)
    assert entry is not None
    return entry.state


def test_a_letter_is_kept_whole_and_once(ledger: Ledger) -> None:
    letter = dead_letter()
    ledger.record_dead_letters([letter])
    ledger.record_dead_letters([letter, dead_letter(detail="told twice")])
    page = ledger.list_dead_letters("docs", False, 10, "")
    assert [entry.letter for entry in page.entries] == [letter]
    assert page.entries[0].state == "open"
    assert page.entries[0].closed_at is None
    assert ledger.query_states("docs") == {"q1": "dead"}
    assert ledger.stats("docs")[0].open_dead_letters == 1


def test_an_unreadable_message_without_query_or_collection_is_kept_too(ledger: Ledger) -> None:
    letter = dead_letter(collection="", query_id="", query_text="", payload=b"\x00")
    ledger.record_dead_letters([letter])
    assert ledger.list_dead_letters().entries[0].letter.payload == b"\x00"


def test_a_letter_with_any_character_is_kept(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter(query_text="a\0b", detail="c\0", reason="\0", subject="s\0")])
    (entry,) = ledger.list_dead_letters().entries
    assert (entry.letter.query_text, entry.letter.detail) == ("a\ufffdb", "c\ufffd")
    assert entry.letter.payload == dead_letter().payload


def test_committing_the_submission_resolves_its_letter(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter("l1"), dead_letter("l2", "q2")])
    ledger.commit([judged_set("q1")])
    assert (state(ledger, "l1"), state(ledger, "l2")) == ("resolved", "open")
    assert ledger.query_states("docs") == {"q1": "committed", "q2": "dead"}
    entry = ledger.get_dead_letter("l1")
    assert entry is not None
    assert entry.closed_at == later(60)


def test_a_letter_of_a_committed_submission_is_born_resolved(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    ledger.record_dead_letters([dead_letter()])
    assert state(ledger) == "resolved"


def test_a_letter_of_another_text_stays_open_beside_the_commit(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter(query_text="another text", reason="query_conflict")])
    ledger.commit([judged_set("q1")])
    assert state(ledger) == "open"
    assert ledger.query_states("docs") == {"q1": "committed"}
    with ledger.snapshot() as snapshot:
        assert sorted(each.state for each in snapshot.submissions("docs")) == ["committed", "dead"]


def test_a_replay_goes_from_open_over_replaying_to_replayed(ledger: Ledger) -> None:
    letter = dead_letter()
    ledger.record_dead_letters([letter])
    assert ledger.begin_replay(["l1", "unknown"]) == [letter]
    assert state(ledger) == "replaying"
    ledger.finish_replay(["l1"])
    assert state(ledger) == "replayed"
    assert ledger.begin_replay(["l1"]) == []
    assert ledger.begin_replay() == []
    assert ledger.list_dead_letters("docs").entries == ()
    assert len(ledger.list_dead_letters("docs", include_closed=True).entries) == 1
    assert ledger.query_states("docs") == {"q1": "replayed"}


def test_a_crash_between_publishing_and_marking_is_repaired_by_replaying_again(ledger: Ledger) -> None:
    letter = dead_letter()
    ledger.record_dead_letters([letter])
    ledger.begin_replay()  # and the process dies
    assert ledger.stats("docs")[0].open_dead_letters == 1
    assert len(ledger.list_dead_letters("docs").entries) == 1
    assert ledger.begin_replay() == [letter]
    ledger.finish_replay(["l1"])
    assert state(ledger) == "replayed"


def test_a_commit_before_the_mark_wins_over_it(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter()])
    ledger.begin_replay()
    ledger.commit([judged_set("q1")])
    ledger.finish_replay(["l1"])
    assert state(ledger) == "resolved"


def test_a_replayed_query_that_is_committed_later_is_resolved(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter()])
    ledger.begin_replay()
    ledger.finish_replay(["l1"])
    ledger.commit([judged_set("q1")])
    assert state(ledger) == "resolved"


@pytest.mark.parametrize("finished", [True, False])
def test_a_letter_that_dies_again_after_its_replay_is_open_again(ledger: Ledger, finished: bool) -> None:
    ledger.record_dead_letters([dead_letter()])
    ledger.begin_replay()
    if finished:
        ledger.finish_replay(["l1"])
    again = dead_letter(failed_at=later(9), detail="again")
    ledger.record_dead_letters([again])
    assert state(ledger) == "open"
    ledger.finish_replay(["l1"])
    assert state(ledger) == "open", "the mark comes late and must not hide the second death"
    assert ledger.list_dead_letters("docs").entries[0].letter == again


def test_a_redelivered_letter_does_not_undo_its_replay(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter()])
    ledger.begin_replay()
    ledger.finish_replay(["l1"])
    ledger.record_dead_letters([dead_letter()])
    assert state(ledger) == "replayed"


def test_a_duplicate_commit_resolves_a_letter_that_slipped_in(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    ledger.record_dead_letters([dead_letter(query_text="x")])
    with ledger.writing("test") as connection:  # as two replicas on a database without one lock could leave it
        from qrelay.identity import query_fingerprint
        from qrelay.labels.ledger.schema import dead_letters

        connection.execute(dead_letters.update().values(submission=query_fingerprint("docs", "q1", "text of q1")))
    ledger.commit([judged_set("q1")])
    assert state(ledger) == "resolved"


def test_pages_follow_one_another_without_gap_or_repeat(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter(f"l{n}", f"q{n}") for n in range(7)])
    seen, token = [], ""
    while True:
        page = ledger.list_dead_letters("docs", False, 3, token)
        seen += [entry.letter.dead_letter_id for entry in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"l{n}" for n in range(7)]


def test_a_foreign_page_token_is_refused_in_words(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="next_page_token"):
        ledger.list_dead_letters("docs", False, 3, "nonsense")


def test_all_that_wait_are_told_oldest_first_whatever_their_clocks_said(ledger: Ledger) -> None:
    ledger.record_dead_letters([dead_letter(f"l{n}", f"q{n}", failed_at=later(-n * 10**6)) for n in range(5)])
    ledger.finish_replay([letter.dead_letter_id for letter in ledger.begin_replay(["l1"])])
    ledger.begin_replay(["l2"])  # and the process dies
    assert ledger.waiting_dead_letters() == ["l0", "l2", "l3", "l4"]


def test_states_of_chosen_ids_leave_the_others_out(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2")])
    ledger.record_dead_letters([dead_letter("l3", "q3"), dead_letter("l4", "q4")])
    assert ledger.query_states("docs", ["q2", "q3", "q9"]) == {"q2": "committed", "q3": "dead"}


def test_a_commit_and_a_letter_of_the_same_query_cannot_pass_each_other(ledger_url: str) -> None:
    """The letter is recorded while the commit is open: whichever comes first, it ends as resolved."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(LONG_S)

    committing, recording = Ledger.open(ledger_url, after_commit=wait), Ledger.open(ledger_url)
    with ThreadPoolExecutor(2) as pool:
        commit = pool.submit(committing.commit, [judged_set("q1")])
        assert inside.wait(LONG_S)
        record = pool.submit(recording.record_dead_letters, [dead_letter(query_id="q1")])
        with pytest.raises(TimeoutError):
            record.result(0.3)
        go_on.set()
        commit.result(20)
        record.result(20)
    assert state(recording) == "resolved"
    committing.close()
    recording.close()
