"""What is wrong with an object, and with a Job above all: the OpenAPI schemas of the last three Kubernetes versions,
taken strictly, and some rules of the API server that no schema holds."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource

Object = dict[str, Any]

VERSIONS = sorted(set(all_versions()), key=lambda text: tuple(map(int, text.split("."))))[-3:]
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _contents(version: str, name: str) -> Any:
    return schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)


@cache
def _definitions(version: str) -> Any:
    registry: Any = Registry()
    return Resource.from_contents(_contents(version, "_definitions")) @ registry


@cache
def _validator(version: str, kind: str, api: str) -> Draft202012Validator:
    """What kubernetes_validate.validate(…, strict=True) applies to a kind, read once. api: apps/v1."""
    group, slash, api_version = api.rpartition("/")
    schema = _contents(version, f"{kind.lower()}-{group.partition('.')[0]}{'-' if slash else ''}{api_version}")
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


def schema_problems(each: Object, version: str) -> list[str]:
    """What the schema of an object's kind says of it."""
    wrong = _validator(version, each["kind"], each["apiVersion"]).iter_errors(each)
    return [f"{version}: {'.'.join(map(str, error.path))}: {error.message}" for error in wrong]


def problems(job: Object) -> list[str]:
    """What is wrong with a Job: the schemas' words, then rules of the API server's that no schema holds."""
    found = [told for version in VERSIONS for told in schema_problems(job, version)]
    name, template = job["metadata"]["name"], job["spec"]["template"]
    if not _NAME.fullmatch(name):
        found.append(f"metadata.name: {name!r}")
    labels = [*job["metadata"].get("labels", {}).items(), *template["metadata"].get("labels", {}).items()]
    found += [f"labels: {key}: {value!r}" for key, value in labels if not _LABEL.fullmatch(value)]
    return found + _pod_problems(job["spec"], template["spec"])


def _pod_problems(spec: Object, pod: Object) -> list[str]:
    found = []
    volumes = {each["name"] for each in pod["volumes"]}
    for container in pod["containers"]:
        mounts = container["volumeMounts"]
        found += [f"volumeMounts: {each['name']} has no volume" for each in mounts if each["name"] not in volumes]
        if len({each["mountPath"] for each in mounts}) < len(mounts):
            found.append("volumeMounts: mountPath must be unique")
    if spec.get("podFailurePolicy") and pod["restartPolicy"] != "Never":
        found.append("podFailurePolicy: only with restartPolicy Never")
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        values = rule.get("onExitCodes", {}).get("values", [1])
        if values != sorted(set(values)) or 0 in values:
            found.append("podFailurePolicy: values must be ordered, unique and not 0")
    return found
