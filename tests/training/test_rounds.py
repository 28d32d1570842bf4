"""Rounds on real services with tiny models and the judge's double: one whole turn, and the sink's own trigger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qrelay.errors import BackendTimeout, SetupError
from qrelay.models.registry import BI_ENCODER, Registry, slot_of
from qrelay.training.job.result import PROMOTED, REJECTED, SlotResult
from qrelay.training.rounds.installation import Installation as Served
from qrelay.training.rounds.state import StateFile
from qrelay.training.rounds.table import rounds_table
from tests.pipeline.harness import DOUBLES, SERVICES, Installation, called, qrelay
from tests.training import sets
from tests.training.tiny import COUNT, tiny_model

COLLECTION = "toy"
ANSWERS = {f"d{n}": f"country c{n} has the seat of city t{n}" for n in range(COUNT)}


def queries(path: Path, *wordings: str) -> Path:
    """The judge's double looks for the query's words in a passage: one passage has them all."""
    rows = [{"query_id": f"{w}-{n}", "text": w.format(n)} for w in wordings for n in range(COUNT)]
    path.write_text(
        "".join(json.dumps({**row, "query_id": row["query_id"].replace(" ", "_")}) + "\n" for row in rows)
    )
    return path


def settings(folder: Path, model: Path) -> Path:
    """Everything on tiny models."""
    train = ["batch_size=16", "documents=4", "max_positives=1", "max_length=32", "checkpoint_every=1",
             f"model=path:{model}", "learning_rate=1.0e-2", "stages=[{epochs: 8}]"]  # fmt: skip
    document = {
        "retriever": {"embedder": f"path:{model}", "registry_poll_s": 0.2},
        "reranker": {"registry_poll_s": 0.2},
        "judge": {"backend": "fake"},
        "sink": {
            "guard_ratio": 0.0,
            "training": {
                "command": [sys.executable, "-m", "qrelay.cli.main", "train", "--job", "{job}"],
                "poll_s": 0.2,
                "unmeasured": True,
            },
        },
        "trainer": {
            "bi_encoder": {"experiment": "infonce_only", "overrides": train},
            "cross_encoder": {"train": False, "experiment": "cross_encoder"},
            "min_queries": 10,
            "swap_timeout_s": 120,
            "gate": {"bi_encoder": {"frozen": str(folder / "frozen")}},
        },
    }
    file = folder / "qrelay.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("rounds")
    model = tiny_model(folder / "tiny")
    asked = {f"{w}{n}": f"{w} c{n}" for w in ("the", "has") for n in range(COUNT)}
    sets.write_set(folder / "frozen", ANSWERS, asked, {query_id: f"d{query_id[3:]}" for query_id in asked})
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in ANSWERS.items()))
    state, environ = folder / "state", {"QRELAY_CONFIG": str(settings(folder, model)), "OMP_NUM_THREADS": "1"}
    built = called("index", "build", str(corpus), "--collection", COLLECTION, "--out", str(state / "index"),
                   "--embedder", f"path:{model}", environ=environ)  # fmt: skip
    assert built.returncode == 0, built.stderr
    with Installation(state, environ) as installation:
        yield installation


def served(installation: Installation) -> str:
    found = Registry(installation.folder / "registry").serving(BI_ENCODER)
    return found.version if found else ""


def killed_at(running: Installation, words: str, *command: str) -> None:
    """Run a qrelay command and kill it, and all that it has started, the moment it says these words."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qrelay.cli.main", *command], env={**os.environ, **running.environ},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert words in said[-1], "".join(said)


def rounds_of(running: Installation, *loop: str) -> Any:
    """What the command says at its end; it takes signals, so it runs in a process of its own."""
    done = qrelay(*loop, "--json", environ=running.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(1800)
def test_a_round_killed_at_every_step_ends_with_a_better_model_that_the_retriever_serves(
    running: Installation, tmp_path: Path
) -> None:
    asked = queries(tmp_path / "queries.jsonl", "c{}", "of c{}", "in c{}", "is c{}")
    loop = ["rounds", "--n", "1", "--queries", str(asked), "--collection", COLLECTION]
    dry = qrelay(*loop, "--dry-run", environ=running.environ)
    assert "at most 64 queries x 25 (reranker.sample) = 1600 a round" in dry.stdout, dry.stderr
    assert "those that run are used" in dry.stdout
    for words in ("feeding", "training job", "step 8/", "waiting until"):
        killed_at(running, words, *loop)
    found = rounds_of(running, *loop)
    (turn,) = found["rounds"]
    (slot,) = turn["slots"]
    assert (turn["committed"], turn["dead"], turn["done"]) == (64, 0, True)
    assert slot["outcome"] == PROMOTED, slot["why"]
    assert served(running) == slot["version"]
    assert len(list((running.folder / "registry" / "versions").iterdir())) == 1
    info = Served(running.folder).served(BI_ENCODER, COLLECTION)
    assert [each.split("@")[0] for each in info] == [slot["version"]]
    assert Served(running.folder).served(slot_of(BI_ENCODER, COLLECTION), COLLECTION) == info
    events = len(Registry(running.folder / "registry").history())
    assert rounds_of(running, *loop) == found  # nothing is done twice
    assert len(Registry(running.folder / "registry").history()) == events


@pytest.mark.timeout(1800)
def test_a_trigger_of_the_sink_launches_the_job_whose_version_serves(running: Installation, tmp_path: Path) -> None:
    if served(running):
        assert called("models", "rollback", BI_ENCODER, environ=running.environ).returncode == 0
    running.run("feed", str(queries(tmp_path / "more.jsonl", "what c{}", "which c{}")), "--collection", COLLECTION,
                "--wait")  # fmt: skip
    done = called("training", "run", "--collection", COLLECTION, environ=running.environ)
    assert done.returncode == 0, done.stderr
    running.until(lambda: served(running) or _ended(running))
    assert served(running), _ended(running)


def _ended(running: Installation) -> str:
    """The log of a job that has ended, empty while none has."""
    exits = list((running.folder / "training").glob("train-*/exit"))
    return "\n".join(path.with_name("log").read_text() for path in exits)


def test_a_version_that_no_service_takes_up_is_said_so(running: Installation) -> None:
    with pytest.raises(BackendTimeout, match=r"retriever does not serve bi-encoder-none,.*swap_timeout_s"):
        Served(running.folder).await_served(BI_ENCODER, COLLECTION, "bi-encoder-none", 0.0)


def test_services_that_do_not_run_are_started_for_the_rounds_and_stopped_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in DOUBLES.items():
        monkeypatch.setenv(name, value)
    installation = Served(tmp_path)
    with pytest.raises(ZeroDivisionError), installation.running() as started:
        assert started
        assert not installation.missing
        with installation.running() as again:
            assert not again
        raise ZeroDivisionError
    assert set(installation.missing) == set(SERVICES)


def test_services_that_cannot_start_say_why(tmp_path: Path) -> None:
    config = tmp_path / "qrelay.yaml"
    config.write_text("judge: {backend: nonsense}\n")
    with pytest.raises(SetupError, match="nonsense"), Served(tmp_path, config).running():
        pass


def test_services_that_would_never_serve_the_result_are_refused_before_anything_is_fed(tmp_path: Path) -> None:
    asked = queries(tmp_path / "queries.jsonl", "c{}")
    environ = {"QRELAY_RERANKER__SCORER": "fake", "QRELAY_RETRIEVER__ENGINE": "synthetic"}
    done = qrelay("rounds", "--queries", str(asked), "--collection", COLLECTION, "--data-dir", str(tmp_path / "data"),
                  environ=environ)  # fmt: skip
    assert done.returncode == 78
    assert "retriever.engine" in done.stderr
    assert "reranker.scorer" in done.stderr


def slot_result(outcome: str) -> SlotResult:
    row = {"rule": "better", "metric": "nDCG@10", "set": "dev", "baseline": 0.5, "candidate": 0.6, "p": 0.01}
    return SlotResult(BI_ENCODER, outcome, "why", "v1", 64, 1024, 1.0, {"rows": [row]})


def test_a_series_is_read_as_it_was_written_and_goes_on_with_the_round_that_was_begun(tmp_path: Path) -> None:
    file = StateFile(tmp_path, COLLECTION)
    series = file.read()
    at = series.current()
    at.fed, at.slots = True, [slot_result(PROMOTED)]
    file.write(series)
    again = StateFile(tmp_path, COLLECTION).read()
    assert again == series
    assert (again.current().number, again.current().fed, again.done) == (0, True, 0)
    again.current().done = True
    assert again.current().number == 1


def test_a_new_series_counts_on_where_the_old_one_ended(tmp_path: Path) -> None:
    file = StateFile(tmp_path, COLLECTION)
    series = file.read()
    series.current().done = True
    series.stopped = "round 0 passed the gate for no slot"
    file.write(series)
    fresh = file.restart()
    assert (fresh.first, fresh.stopped, fresh.current().number) == (1, "", 1)
    assert (file.path.parent / f"rounds-{series.name}.json").exists()


def test_the_table_has_a_row_a_slot_with_figures_and_verdict(tmp_path: Path) -> None:
    from rich.console import Console

    series: Any = StateFile(tmp_path, COLLECTION).read()
    series.current().slots = [slot_result(REJECTED)]
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(rounds_table(series))
    text = console.export_text()
    for word in ("1024", "nDCG@10 dev", "0.5000", "0.6000", "rejected: why"):
        assert word in text
