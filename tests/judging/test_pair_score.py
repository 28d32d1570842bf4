"""Judges that are encoders: what their labels are, whose they are, and when they are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import ConfigError, QrelayError
from qrelay.judging.calibration import raw_score
from qrelay.judging.engines import make_backend
from qrelay.judging.load import load_panel
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Local, Weights
from qrelay.llm.embedder import CUT, SLOPE, EmbedderBackend
from qrelay.llm.exchange import PAIR_SCORES, Pair, PairScore
from qrelay.models.embedder import HashEmbedder, load_embedder
from qrelay.types import Graded, TraceStep
from tests import tiny
from tests.judging.samples import COOKING, COPYTREE, LOCK, candidate_set, judge_one, make_judge, outcomes, reasons

TEXTS = (COPYTREE, LOCK, COOKING)
WORDS = dict.fromkeys(" ".join(TEXTS).lower().replace(".", " ").replace(",", " ").split())


class Says(Local):
    """A backend that gives every pair the same log-odds."""

    def __init__(self, log_odds: float) -> None:
        self.weights = Weights("says", "1", "none")
        self._decodings = {PAIR_SCORES: "said"}
        self._log_odds = log_odds

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        return [PairScore(self._log_odds, "said") for _ in pairs]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"path:{tiny.bi_encoder(tmp_path_factory.mktemp('judge') / 'encoder', WORDS, 7)}"


async def graded(log_odds: float) -> Graded:
    (label,) = outcomes(await judge_one(make_judge(Says(log_odds), strategy="pair_score"), candidate_set(LOCK)))
    assert isinstance(label, Graded)
    return label


async def test_a_label_is_the_log_odds_that_the_model_gives() -> None:
    for log_odds in (-8.0, -0.5, 0.0, 2.0, 8.0):
        label = await graded(log_odds)
        assert label.p_relevant == pytest.approx(1 / (1 + math.exp(-log_odds)))
        assert label.grade == (log_odds > 0)
        assert raw_score(label) == pytest.approx(log_odds)


async def test_log_odds_without_bounds_stay_probabilities() -> None:
    assert (await graded(1e9)).p_relevant == pytest.approx(1.0)
    assert (await graded(-1e9)).p_relevant == pytest.approx(0.0)


async def test_what_is_no_number_is_missing() -> None:
    judged = await judge_one(make_judge(Says(math.nan), strategy="pair_score"), candidate_set(LOCK, COOKING))
    assert reasons(judged) == ["unparseable", "unparseable"]


async def test_an_embedder_judges_by_the_cosine_of_query_and_passage() -> None:
    embedder = HashEmbedder()
    judged = await judge_one(make_judge(EmbedderBackend(embedder), strategy="pair_score"), candidate_set(*TEXTS))
    query = embedder.encode([judged.candidate_set.query.text], "query")[0]
    for text, label in zip(TEXTS, outcomes(judged), strict=True):
        vector = embedder.encode([text], "document")[0]
        cosine = float(query @ vector) / math.dist(query, 0 * query) / math.dist(vector, 0 * vector)
        assert isinstance(label, Graded)
        assert raw_score(label) == pytest.approx(SLOPE * (cosine - CUT), abs=1e-5)


async def test_the_settings_make_one_with_the_identity_of_its_weights(encoder: str, tmp_path: Path) -> None:
    settings = JudgeSettings(backend="embedder", model=encoder, data_dir=tmp_path)
    assert settings.strategy == "pair_score"
    panel = load_panel(settings)
    try:
        judged = await judge_one(next(iter(panel.judges.values())), candidate_set(*TEXTS))
        again = await judge_one(next(iter(panel.judges.values())), candidate_set(*TEXTS))
    finally:
        panel.close()
    identity = judged.judgments[0].judge
    assert f"{identity.model}@{identity.revision}" == load_embedder(encoder).fingerprint
    assert not identity.uses_retrieval_scores
    assert all(each.cached for each in again.judgments)


def test_it_answers_no_question_and_others_score_no_pair(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompt_logprobs"):
        strategy = make_strategy("query_likelihood", "0-3")
        make_backend(
            JudgeSettings(backend="embedder", model=encoder, strategy="query_likelihood", data_dir=tmp_path),
            needs=strategy.spec.needs,
        )
    with pytest.raises(ConfigError, match="pair_scores"):
        make_backend(
            JudgeSettings(backend="fake", strategy="pair_score", data_dir=tmp_path),
            needs=make_strategy("pair_score", "0-3").spec.needs,
        )


async def test_the_model_that_found_the_passages_does_not_judge_them() -> None:
    """Its label would be the student's own score: not even one that the cache holds counts."""
    embedder = HashEmbedder()
    judge = make_judge(EmbedderBackend(embedder), strategy="pair_score")
    found_by_it = TraceStep("retriever", "", embedder.fingerprint, 0.0, 0.0)
    own = replace(candidate_set(*TEXTS), trace=(found_by_it,))
    for same in (found_by_it, replace(found_by_it, model=f"{embedder.fingerprint}+openvino-int8-static1")):
        assert reasons(await judge_one(judge, replace(own, trace=(same,)))) == ["refused"] * 3
    other = replace(own, trace=(replace(found_by_it, model="another@1"),))
    assert reasons(await judge_one(judge, other)) == ["graded"] * 3


async def test_a_refusal_is_of_one_set_and_not_of_the_same_pairs_found_by_another_model() -> None:
    embedder = HashEmbedder()
    step = TraceStep("retriever", "", embedder.fingerprint, 0.0, 0.0)
    own, other = (replace(candidate_set(*TEXTS), trace=(each,)) for each in (step, replace(step, model="another@1")))
    for sets, expected in (((own, other), ["refused", "graded"]), ((other, own), ["graded", "refused"])):
        judge = make_judge(EmbedderBackend(embedder), strategy="pair_score")
        assert [reasons(each) for each in await judge.judge(sets)] == [[each] * 3 for each in expected]


async def test_a_stage_that_neither_finds_nor_orders_passages_may_have_the_judges_model() -> None:
    embedder = HashEmbedder()
    judge = make_judge(EmbedderBackend(embedder), strategy="pair_score")
    step = TraceStep("rejudge", "", embedder.fingerprint, 0.0, 0.0)
    assert reasons(await judge_one(judge, replace(candidate_set(*TEXTS), trace=(step,)))) == ["graded"] * 3


def test_no_command_measures_the_retrievers_own_embedder_as_a_judge(encoder: str, tmp_path: Path) -> None:
    (tmp_path / "qrelay.yaml").write_text(f"judge: {{backend: embedder, model: '{encoder}'}}\n")
    (tmp_path / "slice.tsv").write_text("query_id\tquery\tpassage_id\ttitle\ttext\tgrade\n")
    said = CliRunner().invoke(
        judge_command,
        ["eval", "--slice", str(tmp_path / "slice.tsv"), "--relevant-from", "1", "--embedder", encoder,
         "--config", str(tmp_path / "qrelay.yaml"), "--data-dir", str(tmp_path)],
    )  # fmt: skip
    assert said.exit_code == 2
    assert "judge by another model" in said.output
