"""A judge trained on people's grades: from a file of annotated pairs to labels, and what it may not be asked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.main import qrelay
from qrelay.errors import MalformedInput, ModelError
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.judging.calibration import raw_score
from qrelay.judging.load import load_panel
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.cross_encoder import CrossEncoderBackend
from qrelay.llm.exchange import Pair, PairScore
from qrelay.models.catalogue import resolve
from qrelay.models.engines import EncoderEngine
from qrelay.training.data import Reading, read_examples
from qrelay.training.gate.facts import query_hash, read_query_hashes
from qrelay.types import Graded
from tests import tiny
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, candidate_set, judge_one, outcomes
from tests.training import tiny as toy

TEXTS = (COPYTREE, LOCK, COOKING)
WORDS = " ".join((QUERY, *TEXTS)).lower().translate(str.maketrans("", "", ".,?():")).split()


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.cross_encoder(tmp_path_factory.mktemp("judge") / "cross-encoder", dict.fromkeys(WORDS), 7)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each toy query the right answer with grade 3, a wrong one with 1 and one with 0."""
    pairs = [
        GradedPair(f"q{n}", each["passage_id"], grade, toy.query(n), "", each["text"])
        for n in range(toy.COUNT)
        for each, grade in zip(toy.answers(n)[:3], (3, 1, 0), strict=True)
    ]
    path = tmp_path_factory.mktemp("pairs") / "graded.tsv"
    write_annotated_pairs(path, pairs)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, graded: Path) -> Path:
    """The folder that `qrelay train --experiment judge` leaves."""
    folder = tmp_path_factory.mktemp("run")
    model = toy.tiny_model(folder / "base")
    options = [f"model=path:{model}", "learning_rate=3.0e-3", "max_length=32", "batch_size=8"]
    said = CliRunner().invoke(
        qrelay,
        ["train", "--experiment", "judge", "--data", str(graded), "--out", str(folder / "out")]
        + [word for each in options for word in ("--set", each)],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    return folder / "out" / "model"


async def test_the_label_is_a_logistic_of_the_models_output(cross_encoder: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    settings = JudgeSettings(backend="cross-encoder", model=f"path:{cross_encoder}", data_dir=tmp_path)
    panel = load_panel(settings)
    try:
        judged = await judge_one(next(iter(panel.judges.values())), candidate_set(*TEXTS))
    finally:
        panel.close()
    expected = CrossEncoder(str(cross_encoder)).predict([(QUERY, text) for text in TEXTS])
    for label, p in zip(outcomes(judged), expected, strict=True):
        assert isinstance(label, Graded)
        assert label.p_relevant == pytest.approx(float(p), abs=1e-4)
        assert raw_score(label) == pytest.approx(math.log(p / (1 - p)), abs=1e-2)
    identity = judged.judgments[0].judge
    assert identity.revision == resolve(f"path:{cross_encoder}").revision
    assert not identity.uses_retrieval_scores


@pytest.mark.parametrize("engine", ["torch", "openvino"])
async def test_a_pairs_score_does_not_depend_on_its_company(cross_encoder: Path, engine: EncoderEngine) -> None:
    backend = CrossEncoderBackend(resolve(f"path:{cross_encoder}"), engine=engine, threads=1)
    pairs = [Pair(QUERY, text) for text in TEXTS]
    together = await backend.pair_scores(pairs)
    alone = [(await backend.pair_scores([pair]))[0] for pair in pairs]
    backend.close()
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, PairScore)
        assert isinstance(other, PairScore)
        assert one.log_odds == pytest.approx(other.log_odds, abs=0.05)


def test_engines_are_different_judges(cross_encoder: Path) -> None:
    one, other = (
        CrossEncoderBackend(resolve(f"path:{cross_encoder}"), engine=each, threads=1)
        for each in ("torch", "openvino")
    )  # fmt: skip
    assert one.weights != other.weights


def test_a_model_with_several_outputs_is_refused(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = tiny.cross_encoder(tmp_path / "one", dict.fromkeys(WORDS), 7)
    CrossEncoder(str(folder), num_labels=3, model_kwargs={"ignore_mismatched_sizes": True}).save_pretrained(
        str(tmp_path / "three")
    )
    with pytest.raises(ModelError, match="3 outputs"):
        CrossEncoderBackend(resolve(f"path:{tmp_path / 'three'}"))


def right_first(model: Path) -> int:
    """Of how many toy queries the model scores the right answer above the wrong one."""
    from sentence_transformers import CrossEncoder

    scorer = CrossEncoder(str(model), num_labels=1)
    right, wrong = (
        scorer.predict([(toy.query(n), toy.answers(n)[place]["text"]) for n in range(toy.COUNT)]) for place in (0, 1)
    )
    return int((right > wrong).sum())


def test_annotated_pairs_train_a_judge_that_tells_answers_apart(trained: Path) -> None:
    base = trained.parent.parent / "base" / "model"
    assert right_first(trained) == toy.COUNT > right_first(base)


def test_grades_are_targets_from_0_to_1_of_people(graded: Path) -> None:
    (by_grade, *_) = read_examples([graded], Reading(target="grade"))
    assert [each.target for each in by_grade.documents] == pytest.approx([1, 1 / 3, 0])
    (by_half, *_) = read_examples([graded], Reading(target="p_relevant"))
    assert [each.target for each in by_half.positives] == [1]
    assert [each.target for each in by_half.negatives] == [0, 0]
    assert all(each.human for each in by_half.documents)


def test_all_files_are_on_one_scale_and_those_without_two_grades_are_named(graded: Path, tmp_path: Path) -> None:
    low, one = tmp_path / "low.tsv", tmp_path / "one.tsv"
    for path, grades in ((low, (0, 1)), (one, (1, 1))):
        write_annotated_pairs(path, [GradedPair("q", f"p{n}", grade, "q", "", "t") for n, grade in enumerate(grades)])
    (*_, found) = read_examples([graded, low], Reading(target="grade"))
    assert [each.target for each in found.documents] == pytest.approx([0, 1 / 3])
    (*_, found) = read_examples([low, graded, one], Reading())
    assert not found.positives
    with pytest.raises(MalformedInput, match=rf"{one}: .*two different grades"):
        list(read_examples([one], Reading()))


def test_annotated_pairs_hold_no_other_target(graded: Path) -> None:
    with pytest.raises(MalformedInput, match="grade or p_relevant"):
        list(read_examples([graded], Reading(target="answer_nll")))


def test_a_trained_model_says_on_which_queries(trained: Path) -> None:
    assert read_query_hashes(trained) == frozenset(query_hash(toy.query(n)) for n in range(toy.COUNT))


def evaluated(model: Path, pairs: Path, folder: Path, command: str = "eval", *more: str) -> Result:
    (folder / "qrelay.yaml").write_text(f"judge: {{backend: cross-encoder, model: 'path:{model}'}}\n")
    asked = ["--slice", str(pairs), "--relevant-from", "2", "--embedder", "", "--data-dir", str(folder), *more]
    return CliRunner().invoke(qrelay, ["judge", command, *asked, "--config", str(folder / "qrelay.yaml")])


@pytest.mark.parametrize("command", ["eval", "qualify", "calibrate"])
def test_it_is_not_measured_on_the_queries_whose_grades_it_learnt(
    trained: Path, graded: Path, tmp_path: Path, command: str
) -> None:
    out = [] if command == "eval" else ["--out", str(tmp_path / "out.json")]
    said = evaluated(trained, graded, tmp_path, command, *out)
    assert said.exit_code == 2
    assert f"was trained on {toy.COUNT} of these {toy.COUNT} queries" in said.output


def test_on_other_queries_it_is_measured_like_any_judge(trained: Path, tmp_path: Path) -> None:
    pairs = [
        GradedPair(f"new{n}", each["passage_id"], grade, f"city in country c{n}", "", each["text"])
        for n in range(toy.COUNT)
        for each, grade in zip(toy.answers(n)[:3], (3, 1, 0), strict=True)
    ]
    write_annotated_pairs(tmp_path / "new.tsv", pairs)
    said = evaluated(trained, tmp_path / "new.tsv", tmp_path)
    assert said.exit_code == 0, said.output
    assert "pair_score@path:" in said.output
