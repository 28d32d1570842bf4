"""The OpenAPI document (3.1), made of the operations' models."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from qrelay import __version__
from qrelay.web.api.operations import OPERATIONS, Operation
from qrelay.web.errors import STATUS, TOO_LARGE

_REFERENCES: Final = "#/components/schemas/{model}"


class ErrorBody(BaseModel):
    """What happened. `code`: a gRPC status. `reason`: a stable word to match on. `message`: for people."""

    code: str
    reason: str
    message: str
    retryable: bool


class Error(BaseModel):
    """Every error's body."""

    error: ErrorBody


@cache
def document() -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "qrelay",
            "version": __version__,
            "summary": "Queries in, relevance judgments and training data out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _schemas()[1]},
    }


def _operation(each: Operation) -> dict[str, Any]:
    content = {media: {"schema": _answer(each) if media == "application/json" else {"type": "string"}} for media in
               each.media}  # fmt: skip
    failed = {"description": "What went wrong", "content": _json({"$ref": _REFERENCES.format(model="Error")})}
    statuses = sorted({*STATUS.values(), TOO_LARGE} - {401, 403, 499, 501})
    found = {
        "operationId": each.name,
        "summary": each.said.partition(".")[0],
        "description": each.said,
        "responses": {"200": {"description": "Done", "content": content}, **{str(code): failed for code in statuses}},
    }
    if each.method == "GET":
        return {**found, "parameters": _parameters(each)}
    return {**found, "requestBody": {"required": True, "content": _json(_schemas()[0][each.request, "validation"])}}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(each: Operation) -> Any:
    """The schema of an answer, whose definitions are among the components."""
    if each.answer is None:
        return {"type": "object"}
    schema = each.answers.json_schema(mode="serialization", ref_template=_REFERENCES)
    schema.pop("$defs", None)
    name = getattr(each.answer, "__name__", "")
    return {"$ref": _REFERENCES.format(model=name)} if name in _schemas()[1] else schema


def _parameters(each: Operation) -> list[dict[str, Any]]:
    schema = each.request.model_json_schema()
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.pop("description", ""),
            "schema": field,
        }
        for name, field in schema["properties"].items()
    ]


@cache
def _schemas() -> tuple[dict[Any, Any], dict[str, Any]]:
    """(reference of each request, every model's schema by its name)."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Error, "serialization")]
    for each in OPERATIONS:
        if each.method != "GET":
            wanted.append((each.request, "validation"))
        wanted.extend((model, "serialization") for model in _models(each.answer))
    references, found = models_json_schema(wanted, ref_template=_REFERENCES)
    return references, found["$defs"]


def _models(answer: Any) -> list[type[BaseModel]]:
    """The models that an answer's type names."""
    if isinstance(answer, type) and issubclass(answer, BaseModel):
        return [answer]
    return [model for each in getattr(answer, "__args__", ()) for model in _models(each)]
