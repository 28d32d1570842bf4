"""Every overlay and every combination of components builds, and each object is one that an API server takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions

from scripts.fetch_schemas import GROUPS, schemas
from tests.deploy.k8s.rendering import COMPONENTS, RENDERED, Object, combined, identity

JUDGES = ("", "gpu-judge", "openai-judge")
LEDGERS = ("", "postgres", "sqlite")
SERVERS = ("", "nats-single")
REST = (
    "console", "index-build", "reembed", "milvus", "feed", "keda", "telemetry", "training", "kueue", "shared-nfs",
    "nats-auth", "external-secrets", "external-secrets-judge", "external-secrets-training", "external-secrets-nats",
    "feed-tls", "tls",
)  # fmt: skip
"""Components that go with any of the others."""
LAST_THREE = list(dict.fromkeys(all_versions()))[-3:]


def is_custom(each: Object) -> bool:
    """Whether the object is of an operator, and not of Kubernetes itself."""
    return each["apiVersion"].partition("/")[0] in GROUPS


def distinct() -> Iterator[Object]:
    """Every object of every rendering, equal ones once."""
    seen = set()
    for objects in RENDERED.values():
        for each in objects:
            text = json.dumps(each, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield each


def test_the_lists_here_name_every_component() -> None:
    assert {*JUDGES, *LEDGERS, *SERVERS, *REST} - {""} == {*COMPONENTS}


@pytest.mark.parametrize("judge", JUDGES)
def test_components_combine_with_each_other(judge: str) -> None:
    for ledger, servers in product(LEDGERS, SERVERS):
        objects = combined([each for each in (judge, ledger, servers, *REST) if each])
        names = [identity(each) for each in objects]
        assert len(names) == len(set(names)), (judge, ledger, servers)


@pytest.mark.parametrize("version", LAST_THREE)
def test_every_object_is_one_of_kubernetes(version: str) -> None:
    for each in distinct():
        if not is_custom(each):
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{identity(each)}: {'.'.join(map(str, error.path))}: {error.message}")


def test_every_custom_object_is_one_of_its_operator() -> None:
    kinds, known = set(), schemas()
    for each in filter(is_custom, distinct()):
        kinds.add(each["kind"])
        schema = strict(known[f"{each['apiVersion']} {each['kind']}"])
        problems = [
            f"{'.'.join(map(str, error.path))}: {error.message}"
            for error in jsonschema.Draft202012Validator(schema).iter_errors(each)
        ]
        assert not problems, (identity(each), problems)
    expected = {"ScaledObject", "ServiceMonitor", "PrometheusRule", "ResourceFlavor", "ClusterQueue", "LocalQueue"}
    expected |= {"ExternalSecret", "Certificate", "Issuer"}
    assert kinds == expected


def test_a_field_that_the_operator_does_not_know_is_found() -> None:
    schema = strict(schemas()["keda.sh/v1alpha1 ScaledObject"])
    scaled = next(each for each in distinct() if each["kind"] == "ScaledObject")
    wrong = {**scaled, "spec": {**scaled["spec"], "maxReplicas": 3}}
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(scaled))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(wrong))


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden, as `kubectl --validate=strict` has it. metadata, which refers to a
    schema elsewhere, is any object."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items() if key not in ("x-kubernetes-validations",)}
    if "$ref" in found:
        return {"type": "object"}
    closed = isinstance(found.get("properties"), dict) and "additionalProperties" not in found
    if closed and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return found
