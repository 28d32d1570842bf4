"""`qrelay eval`: the bare command beside its commands, several models, the page, runs, errors."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.eval.group import evaluate_command
from qrelay.formats.runs import read_run, run_lines
from qrelay.training.evaluation.evaluate import from_json
from qrelay.training.evaluation.page import page_of
from tests.training.beir import beir_folder, lines, tiny_bert


def call(*words: object) -> Result:
    return CliRunner().invoke(evaluate_command, [str(word) for word in words])


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return beir_folder(tmp_path / "beir")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bi-encoder and a cross-encoder."""
    folder = tmp_path_factory.mktemp("models")
    return tiny_bert(folder / "bi", pairs=False), tiny_bert(folder / "cross", pairs=True)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_model_is_measured_on_three_files(beir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    files = ("--corpus", beir, "--queries", beir / "queries.jsonl", "--qrels", beir / "qrels" / "test.tsv")
    result = call("--model", "bm25", *files, "--json-file", out)
    assert result.exit_code == 0, result.output
    assert "bm25: 3 queries" in result.output
    document = read(out)
    assert document["means"]["RR@5"] == 1.0
    assert document["intervals"]["RR@5"] == [1.0, 1.0]
    assert document["facts"]["documents"] == 4
    assert from_json(document).first == {"q1": "d2", "q2": "d1", "q3": "d4"}


def test_a_folder_in_beirs_layout_is_enough(beir: Path) -> None:
    assert call("--model", "bm25", "--corpus", beir).exit_code == 0


def test_several_models_are_compared_with_the_first(beir: Path, tmp_path: Path, models: tuple[Path, Path]) -> None:
    bi, cross = models
    places = ("--json-file", tmp_path / "out.json", "--html", tmp_path / "out.html", "--run-out", tmp_path / "runs")
    result = call("--model", "bm25", "--model", bi, "--model", cross, "--corpus", beir, *places)
    assert result.exit_code == 0, result.output
    document = read(tmp_path / "out.json")
    assert [each["system"] for each in document["systems"]] == ["bm25", str(bi), str(cross)]
    assert [(each["old"], each["new"]) for each in document["comparisons"]] == [
        ("bm25", str(bi)),
        ("bm25", str(cross)),
    ]
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert set(read_run(tmp_path / "runs" / "bm25.run")) == {"q1", "q2", "q3"}
    assert f"{bi}: 3 queries, against bm25" in result.output


def test_an_evaluation_is_compared_with_an_earlier_one_of_the_same_collection(
    beir: Path, tmp_path: Path, models: tuple[Path, Path]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert call("--model", "bm25", "--corpus", beir, "--json-file", old).exit_code == 0
    assert call("--model", models[0], "--corpus", beir, "--against", old, "--json-file", new).exit_code == 0
    assert read(new)["against"]["old"] == "bm25"
    lines(beir / "corpus.jsonl", [{"_id": "d2", "text": "another corpus"}])
    refused = call("--model", "bm25", "--corpus", beir, "--against", old)
    assert "on one collection" in str(refused.exception)


def test_a_cross_encoder_orders_the_run_that_is_given(beir: Path, tmp_path: Path, models: tuple[Path, Path]) -> None:
    first = tmp_path / "first.run"
    first.write_text("".join(run_lines({"q1": {"d3": 1.0, "d4": 0.5}}, "mine")))
    result = call("--model", models[1], "--corpus", beir, "--run", first, "--run-out", tmp_path / "out.run")
    assert result.exit_code == 0, result.output
    assert {query_id: set(found) for query_id, found in read_run(tmp_path / "out.run").items()} == {
        "q1": {"d3", "d4"}
    }
    refused = call("--model", "bm25", "--corpus", beir, "--run", first)
    assert "none of the models is one" in str(refused.exception)


def test_the_page_is_whole_and_its_texts_are_escaped(beir: Path, tmp_path: Path, models: tuple[Path, Path]) -> None:
    queries = (beir / "queries.jsonl").read_text().replace("what do mice eat?", "<script>mice</script>?")
    (beir / "queries.jsonl").write_text(queries)
    out = tmp_path / "out.json"
    assert call("--model", "bm25", "--model", models[0], "--corpus", beir, "--json-file", out).exit_code == 0
    page = page_of(read(out))
    assert "&lt;script&gt;mice&lt;/script&gt;?" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page.replace("&#39;", "'")
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr>") == 3


def test_options_of_the_bare_command_and_a_command_do_not_mix(beir: Path, tmp_path: Path) -> None:
    refused = call("--model", "bm25", "freeze", "--corpus", beir, "--name", "x", "--out", tmp_path / "x")
    assert (refused.exit_code, "put them after it" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--model", "bm25"], "'--corpus'"), (["--corpus", "."], "'--model'"), (["nonsense"], "nonsense")],
)
def test_what_is_missing_or_unknown_is_named(words: list[str], told: str) -> None:
    result = call(*words)
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_help_shows_the_bare_options_and_the_commands() -> None:
    told = call("--help").output
    assert all(word in told for word in ("--model", "--run-out", "agreement", "answers", "freeze"))


def test_a_model_named_twice_is_refused(beir: Path) -> None:
    assert "named twice" in str(call("--model", "bm25", "--model", "bm25", "--corpus", beir).exception)
