"""Label Studio's and Argilla's own libraries read what we write, and we read what they write.

No server of either runs here. Label Studio's SDK validates configuration, tasks and annotations and writes its JSON
export by itself. Argilla's asks a server who is there before it does anything: it gets that one answer, as its server
gives it; settings, records, responses and the export are then the library's own work.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import argilla
import pytest
from argilla.records._io import JsonIO
from click.testing import CliRunner
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

from qrelay.cli.labels.label import label
from qrelay.formats.annotated_pairs import GradedPair, write_annotated_pairs
from qrelay.labels.importing import parse
from qrelay.labels.ledger.overrides import NewOverride

PAIRS = [
    GradedPair("q1", "d0#0", None, "how many <b>moons</b>?", "Moons", "Mars has two moons."),
    GradedPair("q1", "d1#0", None, "how many <b>moons</b>?", "", "Bread & butter."),
]
ME = {"id": str(UUID(int=1)), "username": "ana", "first_name": "Ana", "role": "annotator",
      "inserted_at": "2026-01-01T00:00:00", "updated_at": "2026-01-01T00:00:00"}  # fmt: skip


def written(tool: str, folder: Path) -> Path:
    write_annotated_pairs(folder / "to-grade.tsv", PAIRS)
    asked = ["tasks", str(folder / "to-grade.tsv"), "--for", tool, "--out", str(folder / tool)]
    assert CliRunner().invoke(label, asked, catch_exceptions=False).exit_code == 0
    return folder / tool


def test_label_studio_takes_our_tasks_and_we_its_export(tmp_path: Path) -> None:
    folder = written("label-studio", tmp_path)
    interface = LabelInterface((folder / "labels.xml").read_text())
    interface.validate()
    tasks = json.loads((folder / "tasks.json").read_text())
    (tmp_path / "graded").mkdir()
    for number, (each, grade) in enumerate(zip(tasks, ["2", "0"], strict=True), 1):
        assert interface.validate_task(each)
        annotation = {
            "id": number, "completed_by": 4, "was_cancelled": False, "updated_at": f"2026-01-0{number}T00:00:00Z",
            "result": [{"from_name": "grade", "to_name": "text", "type": "choices", "value": {"choices": [grade]}}],
        }  # fmt: skip
        assert interface.validate_annotation(annotation)
        each |= {"id": number, "annotations": [annotation], "predictions": []}
        (tmp_path / "graded" / f"{number}.json").write_text(json.dumps(each))
    bad = {"result": [{"from_name": "grade", "to_name": "text", "type": "choices", "value": {"choices": ["7"]}}]}
    assert not interface.validate_annotation(bad), "the scale's grades and no other"
    Converter(interface.config, str(tmp_path)).convert_to_json(str(tmp_path / "graded"), str(tmp_path))
    found = parse(tmp_path / "result.json", "0-3", "ana")
    assert (found.format, found.bad, found.ungraded) == ("label-studio", [], 0)
    assert sorted(found.overrides.values(), key=lambda each: each.passage_id) == [
        NewOverride("q1", "d0#0", 2, "0-3", "label-studio-4", ""),
        NewOverride("q1", "d1#0", 0, "0-3", "label-studio-4", ""),
    ]


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.path == "/api/v1/me", self.path
        body = json.dumps(ME).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def known_to_argilla() -> Iterator[None]:
    """A client that a server knows, as the library's default."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    argilla.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="of-nothing")
    yield
    argilla.Argilla._default_client = None
    server.shutdown()


@pytest.mark.usefixtures("known_to_argilla")
def test_argilla_takes_our_folder_and_we_its_export(tmp_path: Path) -> None:
    folder = written("argilla", tmp_path)
    dataset_path, settings_path, records_path = argilla.Dataset._define_child_paths(folder)
    assert argilla.Dataset._load_dataset_model(dataset_path).name == "argilla"
    settings = argilla.Settings.from_json(settings_path)
    settings.validate()
    assert [each.name for each in settings.questions] == ["grade", "note"]
    assert settings.questions["grade"].labels == ["0", "1", "2", "3"]  # type: ignore[union-attr]
    records = JsonIO._records_from_json(records_path)
    assert [dict(each.fields) for each in records] == [
        {"query": each.query, "title": each.title, "text": each.text} for each in PAIRS
    ]
    for record, (grade, by) in zip(records, [("3", 1), ("1", 2)], strict=True):
        record.responses.add(argilla.Response("grade", grade, UUID(int=by), status="submitted"))
    records[0].responses.add(argilla.Response("note", "sure", UUID(int=1), status="submitted"))
    found = parse(JsonIO.to_json(records, tmp_path / "exported.json"), "0-3", "ana")
    assert (found.format, found.bad) == ("argilla", [])
    assert [*found.overrides.values()] == [
        NewOverride("q1", "d0#0", 3, "0-3", f"argilla-{UUID(int=1)}", "sure"),
        NewOverride("q1", "d1#0", 1, "0-3", f"argilla-{UUID(int=2)}", ""),
    ]
