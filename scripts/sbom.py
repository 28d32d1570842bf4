"""Bills of materials, CycloneDX 1.6: of what runs in this environment, and of what each image installs.

    .venv/bin/python -m scripts.sbom [--out build/sbom]       # `make sbom`

Developers' tools are in none of them. Images are those of Linux, x86-64; their licences are those of the same
package here. The same pins give the same files. cyclonedx-bom is in .venv-supply (`make sbom` installs it).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, Final, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qrelay import __version__
from scripts import hashed, licences
from scripts.recipes import IMAGES, ROOT, read
from scripts.requirements import named

TOOL: Final = ROOT / ".venv-supply" / "bin" / "cyclonedx-py"
IMAGE: Final = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
                "python_version": "3.11", "python_full_version": "3.11.0"}  # fmt: skip
"""Where images run, as markers ask."""

Bill = dict[str, Any]
Licences = list[dict[str, Any]]


def write(out: Path) -> list[Path]:
    """All of them into `out`, each image's beside its pins. Raises CalledProcessError: the tool failed, by what it
    printed."""
    out.mkdir(parents=True, exist_ok=True)
    text = hashed.FILE.read_text("utf8")
    here = restricted(_ask("environment", sys.executable), hashed.part(hashed.EXTRAS, text).keys())
    rules = licences.read_rules((ROOT / "scripts" / "licences.yaml").read_text("utf8"))
    for component in here["components"]:
        component.setdefault("licenses", _named(component["name"], rules))
    known = {canonicalize_name(each["name"]): each["licenses"] for each in here["components"]}
    _save(here, out / "qrelay.cdx.json")
    for image in IMAGES:
        extras = read(image).extras
        entries = {name: entry for name, entry in hashed.part(extras, text).items() if installed(entry)}
        pins = out / f"{image}.txt"
        pins.write_text("".join(entries.values()), "utf8")
        bill = _ask("requirements", str(pins))
        bill["metadata"]["component"] |= {"name": f"qrelay-{image}", "type": "container"}
        _save(completed(bill, entries, named(extras), known), out / f"{image}.cdx.json")
    return sorted(out.iterdir())


def restricted(bill: Bill, names: Collection[str]) -> Bill:
    """The bill with the packages of these canonical names alone."""
    kept = [each for each in bill["components"] if canonicalize_name(each["name"]) in names]
    refs = {each["bom-ref"] for each in kept} | {bill["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {"ref": each["ref"], "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in refs]}
        for each in bill["dependencies"]
        if each["ref"] in refs
    ]
    return bill | {"components": kept, "dependencies": dependencies}


def completed(bill: Bill, entries: Mapping[str, str], direct: set[str], known: Mapping[str, Licences]) -> Bill:
    """The bill of pins with what these do not say: who needs whom, and licences. The tool's descriptions repeat the
    hashes, and go."""
    refs = {canonicalize_name(each["name"]): each["bom-ref"] for each in bill["components"]}
    root = bill["metadata"]["component"]["bom-ref"]
    bill["dependencies"] = [{"ref": root, "dependsOn": sorted(refs[name] for name in direct & refs.keys())}]
    for name, ref in refs.items():
        needed = sorted(refs[other] for other, entry in entries.items() if name in hashed.bringers(entry))
        bill["dependencies"].append({"ref": ref, "dependsOn": needed})
    for component in bill["components"]:
        del component["description"]
        if found := known.get(canonicalize_name(component["name"])):
            component["licenses"] = found
    return bill


def installed(entry: str) -> bool:
    """Whether a pin is for images' system."""
    marker = Requirement(entry.partition("\\")[0]).marker
    return marker is None or marker.evaluate(IMAGE)


def _named(name: str, rules: licences.Rules) -> Licences:
    """By our own list, where the tool does not understand what the package says."""
    metadata = cast(Message, importlib.metadata.metadata(name))
    said = rules.packages.get(canonicalize_name(name)) or " AND ".join(licences.licences(metadata, rules.spellings))
    return [{"license": {"name": said}}]


def _ask(*arguments: str) -> Bill:
    """What the tool says; the version of qrelay, which pyproject.toml does not name, is added to it."""
    command = [TOOL, *arguments, "--pyproject", "pyproject.toml", "--output-reproducible", "-o", "-"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # it warns of a list without who needs whom
    bill: Bill = json.loads(subprocess.run(command, cwd=ROOT, env=quiet, check=True, stdout=subprocess.PIPE).stdout)
    bill["metadata"]["component"]["version"] = __version__
    return bill


def _save(bill: Bill, path: Path) -> None:
    path.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", "utf8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sbom")
    for path in write(parser.parse_args().out.resolve()):
        print(path)


if __name__ == "__main__":
    main()
