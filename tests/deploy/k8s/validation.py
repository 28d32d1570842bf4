"""What is wrong with an object: Kubernetes' own by its OpenAPI schemas, an operator's by the schemas of
scripts/schemas.yaml. Unknown fields are errors in both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from scripts.fetch_schemas import schemas, sources
from tests.deploy.k8s.rendering import Object, identity
from tests.jobs.kubernetes_validation import VERSIONS, schema_problems

GROUPS = {each.api.partition("/")[0] for each in sources() if each.api}
"""Of operators."""


def is_custom(each: Object) -> bool:
    """Whether the object is of an operator, and not of Kubernetes itself."""
    return each["apiVersion"].partition("/")[0] in GROUPS


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden, as `kubectl --validate=strict` has it."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in found else found


@cache
def _validator(kind: str) -> Draft202012Validator | None:
    known = schemas().get(kind)
    return Draft202012Validator(strict(known)) if known else None


def problems(each: Object, versions: Iterable[str] = VERSIONS) -> list[str]:
    """What is wrong with an object. versions: of Kubernetes."""
    if not is_custom(each):
        return [f"{identity(each)}: {told}" for version in versions for told in schema_problems(each, version)]
    kind = f"{each['apiVersion']} {each['kind']}"
    validator = _validator(kind)
    if validator is None:
        return [f"{identity(each)}: the release in scripts/schemas.yaml does not serve {kind}"]
    return [
        f"{identity(each)}: {'.'.join(map(str, error.path))}: {error.message}"
        for error in validator.iter_errors(each)
    ]


def distinct(renderings: Iterable[Iterable[Object]]) -> Iterator[Object]:
    """Every object of the renderings, equal ones once."""
    seen = set()
    for objects in renderings:
        for each in objects:
            text = json.dumps(each, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield each
