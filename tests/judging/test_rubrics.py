"""A judge as a file: what it may say, what makes it another judge, and how its answers are read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from qrelay.errors import BackendTimeout, ConfigError, Oversized, QrelayError
from qrelay.judging.load import check_core, load_panel
from qrelay.judging.settings import JudgeSettings, MemberSettings, default_name
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.base import Measured, Strategy
from qrelay.judging.strategies.chat import Shot
from qrelay.judging.strategies.lint import warnings
from qrelay.judging.strategies.rubric import Rubric, load_rubric, prompts_of, shipped
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS, Chat, Reply
from qrelay.llm.fake import FakeBackend
from qrelay.settings import load_settings
from qrelay.types import Graded, Missing, Passage, Query
from tests.judging.rubrics import OWN, rubric_file, scale
from tests.judging.samples import COPYTREE, LOCK, QUERY, candidate_set, judge_one, make_judge, passage

ROOT = Path(__file__).resolve().parents[2]
ASKED = Query("q", QUERY, "docs")
JSON = {"read": "json", "reason": True}
WORDS = "Reply with JSON: grade and reason. {grades} {answers}"


class Saying(FakeBackend):
    """Replies to every chat with one text, and remembers the chats."""

    def __init__(self, said: str | QrelayError) -> None:
        super().__init__()
        self.said, self.chats = said, list[Chat]()

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        self.chats += chats
        return [Reply(self.said, 7, 3, "saying") if isinstance(self.said, str) else self.said for _ in chats]


def own(folder: Path, **changes: Any) -> Strategy:
    return make_strategy("", "", rubric=rubric_file(folder, **changes))


async def measured(strategy: Strategy, said: str) -> Measured:
    (found,) = await strategy.measure(Saying(said), ASKED, [passage(COPYTREE)])
    assert isinstance(found, Measured)
    return found


# --- what a file may say ------------------------------------------------------------------------------------------


def test_a_rubric_makes_a_judge_with_its_name_scale_and_words(tmp_path: Path) -> None:
    strategy = own(tmp_path, version=3)
    spec = strategy.spec
    assert (spec.name, spec.scale.name, spec.scale.relevant_grade) == ("helpdesk-v3", "0-4:3", 3)
    assert (spec.needs, spec.asks) == ({TOKEN_LOGPROBS}, TOKEN_LOGPROBS)
    system, user = strategy.example(ASKED, Passage("", "", "A title", COPYTREE))
    assert "0 = nothing,\n1 = the subject," in system["content"] and "4 = the answer." in system["content"]
    assert user["content"].startswith(f"Query: {QUERY}\n\n<passage>\nA title\n{COPYTREE}\n</passage>")
    assert user["content"].endswith("Grade, 0, 1, 2, 3 or 4:")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scale": scale(1, "only one")}, "2 to 10 numbers"),
        ({"scale": scale(1, *"abcdefghijk")}, "2 to 10 numbers"),
        ({"scale": {"relevant_from": 1, "grades": {0: "a", 2: "b"}}}, "follow each other"),
        ({"scale": scale(0, "a", "b")}, "from 1 to 1"),
        ({"scale": scale(9, "a", "b", low=8)}, None),
        ({"scale": scale(10, "a", "b", "c", low=9), "answer": {"read": "number"}}, None),
        ({"scale": {"relevant_from": 10, "grades": {1: "a", 2: "b"}}}, "from 2 to 2"),
        ({"scale": scale(2, *"abcdefghij", low=1)}, "'1' of grade 1 and '10' of 10"),
        ({"scale": {"relevant_from": 1, "grades": {0: {"replies": [False]}, 1: {"replies": [True]}}}}, "in quotes"),
        ({"answer": {"read": "yes_no"}}, "tells two apart"),
        ({"answer": {"read": "number", "reason": "Why?"}}, "write true"),
        ({"answer": {"read": "number", "schema": {}}}, "schema is for read: json"),
        ({"answer": {"read": "json", "schema": {"type": 5}}}, "no JSON Schema"),
        ({"answer": {"read": "words"}}, "answer.read"),
        ({"template": "{query} {passage} {querry}"}, "{querry} is no placeholder"),
        ({"template": "{query} {passage} {}"}, "is no placeholder"),
        ({"template": "{query!r} {passage}"}, "is no placeholder"),
        ({"template": "{query} {passage} }"}, "braces that are no placeholder"),
        ({"template": "{query}"}, "the passage once"),
        ({"template": "{passage}"}, "show {query}"),
        ({"template": "{query} {passage} {text}"}, "the passage once"),
        ({"template": "{query} {title} {passage}"}, "shown twice"),
        ({"instructions": "{query}"}, "is no placeholder"),
        ({"examples": [{"query": "q", "text": "t", "answer": "perhaps"}]}, "would not read"),
        ({"name": "Help desk"}, "name"),
        ({"name": "graded"}, "taken by a judge of qrelay"),
        ({"name": "fused"}, "taken by a judge of qrelay"),
        ({"version": 0}, "version"),
        ({"colour": "red"}, "colour"),
        ({"kind": "utility"}, "prompts"),
    ],
)
def test_what_cannot_be_a_judge_is_refused_with_what_to_do(
    tmp_path: Path, changes: dict[str, Any], told: str | None
) -> None:
    if told is None:
        assert own(tmp_path, **changes)
        return
    with pytest.raises(ConfigError) as error:
        own(tmp_path, **changes)
    assert told in str(error.value)


def test_a_rubric_that_is_nowhere_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="binary, graded-0-3, graded-1-4"):
        load_rubric("nowhere.yaml")


@pytest.mark.parametrize("text", ["- a list", "a: [", "", "\0"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="rubric"):
        load_rubric(str(tmp_path / "r.yaml"))


def test_the_texts_of_another_kind_of_judge_are_a_file_too(tmp_path: Path) -> None:
    texts = dict(prompts_of("utility", "utility").prompts)
    path = tmp_path / "u.yaml"
    path.write_text(yaml.safe_dump({"kind": "utility", "name": "mine", "prompts": {**texts, "answer": "Say it."}}))
    spec = make_strategy("", "", rubric=str(path)).spec
    assert (spec.name, spec.listwise) == ("mine", True)
    assert spec.prompt_hash != make_strategy("utility", "0-3").spec.prompt_hash
    path.write_text(yaml.safe_dump({"kind": "utility", "name": "mine", "prompts": {"answer": "Say it."}}))
    with pytest.raises(ConfigError, match="ranking_cue"):
        make_strategy("", "", rubric=str(path))
    with pytest.raises(ConfigError, match="of kind grade"):
        prompts_of("binary", "utility")


# --- two rubrics never share a label --------------------------------------------------------------------------------


async def key(rubric: str) -> str:
    judge = make_judge(rubric=rubric)
    return (await judge_one(judge, candidate_set(COPYTREE))).judgments[0].judgment_key


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": {**OWN["scale"], "relevant_from": 2}},
        {"scale": {**OWN["scale"], "grades": {**OWN["scale"]["grades"], 4: "the whole answer"}}},
        {"instructions": OWN["instructions"].replace("Grade", "Rate")},
        {"template": OWN["template"].replace("ended", "stopped")},
        {"template": OWN["template"].replace("{passage}", "<passage>\n{title}\n{text}\n</passage>")},
        {"template": OWN["template"].replace("Query: {query}\nGrade", "Query: {{query}}\nGrade")},
        {"answer": {"read": "number"}},
        {"answer": {"reason": True}},
        {"answer": {"reason": "Why?"}},
        {"answer": {"read": "json"}},
        {"answer": {"read": "json", "reason": True}},
        {"answer": {"read": "json", "schema": {"type": "object"}}},
        {"answer": {"read": "json", "grade_field": "score"}},
        {"examples": [{"query": "q", "text": "t", "answer": "3"}]},
        {"version": 2},
        {"name": "desk"},
    ],
    ids=str,
)
async def test_every_word_that_is_read_makes_another_judge(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert await key(rubric_file(tmp_path)) != await key(rubric_file(tmp_path, "other.yaml", **changes))


async def test_comments_layout_and_order_make_no_other_judge(tmp_path: Path) -> None:
    first = await key(rubric_file(tmp_path))
    path = tmp_path / "other.yaml"
    path.write_text("# mine\n" + json.dumps(dict(reversed(OWN.items())), indent=7).replace('"0":', "0:") + "\n")
    assert await key(str(path)) == first


async def test_grades_that_are_relevant_from_elsewhere_are_another_scale(tmp_path: Path) -> None:
    names = [own(tmp_path, scale=scale(n, "a", "b", "c", "d")).spec.scale.name for n in (1, 2, 3)]
    assert names == ["0-3:1", "0-3", "0-3:3"]


# --- how answers are read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "grade"),
    [("3", 3), (" 0\n", 0), ("3.0", None), ("Grade: 3", None), ("5", None), ("", None), ("3\nas", None)],
)
async def test_a_number_is_the_grade_alone_or_missing(tmp_path: Path, said: str, grade: int | None) -> None:
    strategy = own(tmp_path, answer={"read": "number"})
    assert (strategy.spec.needs, strategy.spec.asks) == ({GENERATION}, GENERATION)
    outcome = (await measured(strategy, said)).outcome
    assert (outcome.grade if isinstance(outcome, Graded) else outcome.reason) == (
        "unparseable" if grade is None else grade
    )


async def test_a_number_is_guided_to_the_grades_where_the_engine_can(tmp_path: Path) -> None:
    backend = Saying("1")
    await own(tmp_path, answer={"read": "number"}).measure(backend, ASKED, [passage(COPYTREE)])
    assert backend.chats[0].choices == ("0", "1", "2", "3", "4")


async def test_a_number_comes_first_and_its_reason_after_it(tmp_path: Path) -> None:
    strategy = own(tmp_path, answer={"read": "number", "reason": True})
    found = await measured(strategy, "4\nIt names\ncopytree.")
    assert (found.outcome.grade, found.reason) == (4, "It names\ncopytree.")
    assert isinstance((await measured(strategy, "It names copytree.\n4")).outcome, Missing)


@pytest.mark.parametrize(
    ("said", "grade", "reason"),
    [
        ('{"grade": 4, "reason": "It says how."}', 4, "It says how."),
        ('```json\n{"grade": 0, "reason": "x", "more": 1}\n```', 0, "x"),
        ('{"reason": "first", "grade": 2}', 2, "first"),
        ('{"grade": "4", "reason": "x"}', None, ""),
        ('{"grade": 4.5, "reason": "x"}', None, ""),
        ('{"grade": true, "reason": "x"}', None, ""),
        ('{"grade": 9, "reason": "x"}', None, ""),
        ('{"grade": 4}', None, ""),
        ('{"grade": 0, "grade": 4, "reason": "x"}', None, ""),
        ('Sure: {"grade": 4, "reason": "x"}', None, ""),
        ('{"grade": 4, "reason": "x"', None, ""),
        ("[4]", None, ""),
        ("4", None, ""),
        ("[" * 5000, None, ""),
    ],
)
async def test_json_is_what_the_schema_says_or_missing(
    tmp_path: Path, said: str, grade: int | None, reason: str
) -> None:
    found = await measured(own(tmp_path, instructions=WORDS, answer=JSON), said)
    if grade is None:
        assert isinstance(found.outcome, Missing) and found.outcome.reason == "unparseable"
    else:
        assert (found.outcome.grade, found.reason) == (grade, reason)


async def test_a_schema_of_ones_own_decides_which_fields_there_are(tmp_path: Path) -> None:
    fields = {name: {"type": "integer"} for name in ("match", "trust", "score")}
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    strategy = own(tmp_path, answer={"read": "json", "schema": schema, "grade_field": "score"})
    assert (await measured(strategy, '{"match": 1, "trust": 2, "score": 3}')).outcome.grade == 3
    for wrong in ('{"score": 3}', '{"match": 1, "trust": 2, "score": 7}'):
        assert isinstance((await measured(strategy, wrong)).outcome, Missing)


@pytest.mark.parametrize("schema", [{"$ref": "http://nowhere.invalid/x"}, {"$ref": "#/x"}])
async def test_a_schema_that_leads_nowhere_gives_no_grade_and_fetches_nothing(
    tmp_path: Path, schema: dict[str, Any]
) -> None:
    strategy = own(tmp_path, answer={"read": "json", "schema": {"properties": {"grade": schema}}})
    assert isinstance((await measured(strategy, '{"grade": "3"}')).outcome, Missing)


async def test_a_reason_is_asked_for_after_the_probabilities_and_cannot_change_them(tmp_path: Path) -> None:
    plain, asking = own(tmp_path), own(tmp_path, answer={"reason": "Why this grade?"})
    backend = Saying("Because it names copytree.")
    (alone,), (both,) = [await each.measure(backend, ASKED, [passage(COPYTREE)]) for each in (plain, asking)]
    assert isinstance(alone, Measured) and isinstance(both, Measured)
    assert (both.outcome, both.decoding, both.raw_reply) == (alone.outcome, alone.decoding, alone.raw_reply)
    assert (both.reason, both.prompt_tokens) == ("Because it names copytree.", alone.prompt_tokens + 7)
    *_, (role, label), question = backend.chats[0].messages
    assert (role, label, question) == ("assistant", str(both.outcome.grade), ("user", "Why this grade?"))
    assert asking.spec.needs == {TOKEN_LOGPROBS, GENERATION}


async def test_a_reason_that_fails_for_good_costs_no_label_and_one_that_may_come_is_asked_again(
    tmp_path: Path,
) -> None:
    strategy = own(tmp_path, answer={"reason": True})
    (kept,) = await strategy.measure(Saying(Oversized("too long")), ASKED, [passage(COPYTREE)])
    assert isinstance(kept, Measured) and isinstance(kept.outcome, Graded) and not kept.reason
    (again,) = await strategy.measure(Saying(BackendTimeout("silence")), ASKED, [passage(COPYTREE)])
    assert isinstance(again, BackendTimeout)


def test_worked_examples_are_turns_in_the_templates_own_form(tmp_path: Path) -> None:
    example = {"query": "An example?", "title": "T", "text": "Its </passage> text.", "answer": "4"}
    strategy = make_strategy(
        "", "", rubric=rubric_file(tmp_path, examples=[example]), shots=[Shot("A shot?", "", "Shot.", "0")]
    )
    turns = strategy.example(ASKED, passage(COPYTREE))
    assert [each["role"] for each in turns] == ["system", *["user", "assistant"] * 2, "user"]
    assert (turns[2]["content"], turns[4]["content"]) == ("4", "0")
    assert all(each["content"].count("</passage>") == 1 for each in turns if each["role"] == "user")
    with pytest.raises(ConfigError, match="examples"):
        make_strategy(
            "", "", rubric=rubric_file(tmp_path, instructions=WORDS, answer=JSON), shots=[Shot("q", "", "t", "0")]
        )


async def test_a_reason_is_bounded_cached_and_beside_its_label(tmp_path: Path) -> None:
    backend = Saying("Because.\n\nReason: \x1b[31m" + "so " * 900)
    path = rubric_file(tmp_path, answer={"reason": True})
    for cached in (False, True):
        judge = make_judge(backend, tmp_path / "cache.sqlite", rubric=path)
        label = (await judge_one(judge, candidate_set(COPYTREE))).judgments[0]
        assert label.cached is cached
        assert label.reason.startswith("Because. Reason: [31mso so") and len(label.reason) <= 500
    assert len(backend.chats) == 1


async def test_a_reply_is_never_taken_for_a_reason() -> None:
    judge = make_judge(Saying("x\nReason: invented"), strategy="utility")
    assert not (await judge_one(judge, candidate_set(COPYTREE))).judgments[0].reason


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_rubric_beside_the_settings_file_is_found_and_names_the_judge(tmp_path: Path) -> None:
    rubric_file(tmp_path)
    file = tmp_path / "qrelay.yaml"
    file.write_text(
        "judge: {backend: fake, rubric: own.yaml, judges: {a: {}, b: {strategy: binary}, c: {rubric: binary}}}"
    )
    settings = load_settings(JudgeSettings, "judge", file=file, data_dir=tmp_path)
    found = settings.members()
    assert {name: each.rubric for name, each in found.items()} == {
        "a": str(tmp_path / "own.yaml"),
        "b": "",
        "c": "binary",
    }
    assert default_name(settings) == "own@fake"
    found = {name: each for name, each in found.items() if name != "c"}
    panel = load_panel(settings.changed(judges={name: MemberSettings(rubric=each.rubric, strategy=each.strategy)
                                                for name, each in found.items()}))  # fmt: skip
    assert [judge.identity.strategy for judge in panel.judges.values()] == ["helpdesk", "binary"]
    panel.close()


def test_a_rubric_that_cannot_be_used_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="relevant_from"):
        check_core(JudgeSettings(backend="fake", rubric=rubric_file(tmp_path, scale=scale(0, "a", "b"))))


def test_an_engine_that_cannot_reply_in_words_is_refused_with_the_rubric_named(tmp_path: Path) -> None:
    from qrelay.judging.engines import refuse_lacking

    class Mute(FakeBackend):
        capabilities = frozenset({TOKEN_LOGPROBS})

    path = rubric_file(tmp_path, answer={"read": "number"})
    with pytest.raises(ConfigError, match=r"the rubric .*own\.yaml needs generation"):
        refuse_lacking(Mute(), JudgeSettings(backend="fake", rubric=path), frozenset({GENERATION}))


# --- lint -----------------------------------------------------------------------------------------------------------


def linted(folder: Path, **changes: Any) -> str:
    rubric = load_rubric(rubric_file(folder, **changes))
    assert isinstance(rubric, Rubric)
    return "\n".join(warnings(rubric))


@pytest.mark.parametrize("name", shipped())
def test_shipped_rubrics_are_well_made(name: str) -> None:
    rubric = load_rubric(name)
    assert not isinstance(rubric, Rubric) or warnings(rubric) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"template": "{query}\n{text}\nThe passage is over. {query} {answers}"}, "no delimiter"),
        ({"template": "{query}\n<doc>{text}</doc>\nThe passage is over. {query} {answers}"}, "no delimiter"),
        ({"template": "{query}\n<passage>\n{title} {text}</passage>\nThe passage is over. {query} {answers}"}, ""),
        ({"template": "{query}\n{passage}"}, "nothing after the passage"),
        ({"template": "{query}\n{passage}\nThe passage is over. Grade it, {answers}:"}, "query does not follow"),
        ({"scale": scale(1, "no", "")}, "the grades 1 have no meaning"),
        ({"instructions": "Grade it."}, ""),
        ({"instructions": "Grade it.", "template": "{query}\n{passage}\nThe passage is over. {query}:"}, "{grades}"),
        ({"instructions": "{grades}\nGrade it.", "template": "{query}\n{passage}\nThe passage ended. {query}:"},
         "how to answer is not said last"),
        ({"answer": {"read": "json", "reason": True}}, "not told of reason"),
        ({"scale": {"relevant_from": 1, "grades": {0: {"replies": ["no!"]}, 1: "y"}}}, "several tokens"),
        ({"examples": [{"query": "a", "text": "t", "title": one, "answer": two} for one, two in ("x0", " 4")]},
         "some have a title"),
        ({"examples": [{"query": name, "text": "t", "answer": "4"} for name in "ab"]}, "take turns"),
    ],
)  # fmt: skip
def test_lint_says_where_a_rubric_is_unwise(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    found = linted(tmp_path, **changes)
    assert told in found if told else not found, found


async def test_a_passage_alone_in_a_template_keeps_its_place(tmp_path: Path) -> None:
    odd = "{query} {passage} {{ }} {text} %s"
    strategy = own(tmp_path, template="{query} {text} {query} and the rest")
    shown = strategy.example(Query("q", odd, "docs"), passage(LOCK + odd))[-1]["content"]
    assert shown == f"{odd} {LOCK}{odd} {odd} and the rest"


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_rubrics_of_the_page_and_of_the_examples_can_be_used_as_they_stand(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "judge.md").read_text("utf8")
    (tmp_path / "page.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    for path in (tmp_path / "page.yaml", ROOT / "examples" / "rubric.yaml"):
        rubric = load_rubric(str(path))
        assert isinstance(rubric, Rubric) and warnings(rubric) == []
        assert make_strategy("", "", rubric=str(path)).spec.name == "howto"


def test_the_shipped_rubrics_are_package_data() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["setuptools"]["package-data"]
    assert "judging/rubrics/*.yaml" in packaged["qrelay"]
    assert {"graded-0-3", "graded-1-4", "binary", "utility"} <= set(shipped())
