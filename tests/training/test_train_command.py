"""`qrelay train`, as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.errors import ConfigError, MalformedInput
from qrelay.training.experiment import load_experiment, shipped
from tests.training import tiny

TINY = ["batch_size=8", "documents=4", "max_positives=1", "max_length=32"]


def run(*arguments: str, catch: bool = True) -> tuple[int, str]:
    result = CliRunner().invoke(qrelay, ["train", *arguments], catch_exceptions=catch)
    return result.exit_code, result.stdout if result.exit_code == 0 else result.output


def test_list_names_every_shipped_experiment_with_its_losses() -> None:
    code, output = run("--list")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == shipped()
    assert "0.5 kl + 0.5 margin" in output
    assert json.loads(run("--list", "--json")[1])["cross_encoder"] == {
        "kind": "cross_encoder",
        "losses": {"bce": 1.0},
    }


def test_show_prints_what_would_run_and_it_is_an_experiment_again(tmp_path: Path) -> None:
    code, output = run("--experiment", "kl_only", "--set", "seed=7", "--show")
    assert code == 0
    path = tmp_path / "again.yaml"
    path.write_text(output)
    assert yaml.safe_load(output)["seed"] == 7
    assert load_experiment(str(path)) == load_experiment("kl_only", ["seed=7"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--list"),
        (["--experiment", "kl_only"], "--data"),
        (["--experiment", "kl_only", "--data", "x", "--dev-corpus", "."], "together"),
    ],
)
def test_wrong_usage_says_what_is_missing(arguments: list[str], said: str) -> None:
    code, output = run(*arguments)
    assert code == 2 and said in output


def test_bad_data_and_bad_experiments_are_errors_of_their_own(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    out = ["--out", str(tmp_path / "run")]
    model = ["--set", f"model=path:{tiny.tiny_model(tmp_path / 'm')}"]
    with pytest.raises(MalformedInput, match=r"bad\.jsonl:1"):
        run("--experiment", "kl_only", "--data", str(bad), *out, *model, catch=False)
    with pytest.raises(ConfigError, match="no training data"):
        run("--experiment", "kl_only", "--data", str(tmp_path / "none*"), *out, catch=False)
    with pytest.raises(ConfigError, match="losses"):
        run("--experiment", "kl_only", "--set", "losses.no=1", "--data", str(bad), *out, catch=False)


def test_a_run_with_dev_files_reports_rows_losses_and_dev(tmp_path: Path) -> None:
    labels = tiny.labels(tmp_path / "l.jsonl", 8)
    documents = [each for n in range(8) for each in tiny.answers(n)[:2]]
    written = {
        "corpus.jsonl": [{"_id": each["text"], "title": "", "text": each["text"]} for each in documents],
        "queries.jsonl": [{"_id": f"q{n}", "text": tiny.query(n)} for n in range(8)],
    }
    for name, rows in written.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    qrels = "".join(f"q{n}\tthe seat is city t{n}\t1\n" for n in range(8)).replace(" ", "_")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({**row, "_id": row["_id"].replace(" ", "_")}) + "\n" for row in written["corpus.jsonl"])
    )
    arguments = ["--experiment", "infonce_only", "--data", str(labels), "--out", str(tmp_path / "run")]
    arguments += [f"--dev-{name}={tmp_path / file}" for name, file in
                  (("corpus", "corpus.jsonl"), ("queries", "queries.jsonl"), ("qrels", "qrels.tsv"))]  # fmt: skip
    for each in (*TINY, f"model=path:{tiny.tiny_model(tmp_path / 'm')}"):
        arguments += ["--set", each]
    code, output = run(*arguments, catch=False)
    assert code == 0
    assert "stage train: 8 examples, 8 rows, 1 steps" in output
    assert "dev nDCG@10:" in output and str(tmp_path / "run" / "model") in output
    code, again = run(*arguments, "--json", catch=False)
    assert json.loads(again)["state"] == "done"
