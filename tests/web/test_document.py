"""The OpenAPI document is valid, says what is answered, and can be read without internet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qrelay.config import GrpcSettings
from qrelay.web.api.document import document
from qrelay.web.api.operations import OPERATIONS
from tests.web.serving import Served, console


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with console(tmp_path_factory.mktemp("document")) as served:
        yield served


def test_the_document_is_openapi_3_1(site: Served) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="pip install 'qrelay[dev]' brings it")
    found = site.http.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    validator.validate(found)


def test_every_operation_is_in_the_document() -> None:
    found = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert found == {(each.method, each.path) for each in OPERATIONS}
    ids = [operation["operationId"] for methods in document()["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_every_field_that_is_asked_for_is_described_or_plain() -> None:
    """A reader knows what `max_candidates` means; `collection`, `query` and the like speak for themselves."""
    assert all(schema.get("description") for schema in document()["components"]["schemas"].values())


@pytest.mark.parametrize(
    ("path", "schema"),
    [("/v1/labels?collection=docs&texts=1&every=1", "Labels"), ("/v1/queries?collection=docs", "Queries"),
     ("/v1/stats", "StatsAnswer"), ("/v1/labels?collection=nowhere", "Error"), ("/nowhere", "Error")],
)  # fmt: skip
def test_what_is_answered_is_what_the_document_says(site: Served, path: str, schema: str) -> None:
    said: dict[str, Any] = {"$ref": f"#/components/schemas/{schema}", "components": document()["components"]}
    Draft202012Validator(said).validate(site.http.get(path).json())


def test_an_answer_above_the_limit_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with console(tmp_path, grpc=GrpcSettings(max_message_bytes=1024)) as site:
        answer = site.http.get("/v1/labels?collection=docs&texts=1")
    assert answer.status_code == 413
    assert "ask for less" in answer.json()["error"]["message"]


def test_the_page_names_every_operation_and_asks_nobody_else(site: Served) -> None:
    page = site.http.get("/api", headers={"accept": "text/html"})
    assert page.status_code == 200
    for each in OPERATIONS:
        assert f"{each.method} {each.path}" in page.text
    links = re.findall(r'(?:href|src|action)="([^"]*)"', page.text)
    assert links
    assert all(link.startswith(("/", "#", "data:")) for link in links)
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]*)"', page.text))
