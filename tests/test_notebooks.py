"""The notebooks run in a kernel from the first cell to the last, with the shipped double as the judge."""

from __future__ import annotations

from pathlib import Path

import nbformat

from scripts.notebooks import EXAMPLES, run

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
DOUBLES = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_RETRIEVER__EMBEDDER": "hash", "QRELAY_RERANKER__SCORER": "fake"}
JUDGE = {"QRELAY_JUDGE__BACKEND": "fake"}


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that its cells wrote."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def test_labels_are_made_looked_at_corrected_and_exported(tmp_path: Path) -> None:
    said = printed(run(EXAMPLES / "label_and_look.ipynb", tmp_path, **DOUBLES))
    assert "8 questions labelled, 0 could not be" in said
    assert "ana" in said and (tmp_path / "notebook-labels" / "workshop.qrels").exists()


def test_a_model_is_trained_and_the_gate_says_what_becomes_of_it(tmp_path: Path) -> None:
    said = printed(run(EXAMPLES / "train_and_gate.ipynb", tmp_path, **JUDGE))
    assert "bi-encoder-" in said and "nDCG@10 on workshop" in said


def test_a_run_is_judged_and_measured_with_the_labels(tmp_path: Path) -> None:
    said = printed(run(EXAMPLES / "judge_a_run.ipynb", tmp_path, **DOUBLES))
    assert said.count("nDCG@3") >= 4
    assert (tmp_path / "notebook-run" / "judged.qrels").exists()


def test_every_notebook_is_run_here() -> None:
    names = Path(__file__).read_text("utf8")
    assert NOTEBOOKS and all(f'"{path.name}"' in names for path in NOTEBOOKS)
