"""Has every dependency of an extra a wheel on every kind of machine that qrelay runs on?

    .venv/bin/python -m scripts.check_wheels [--extra label] [--python 3.12] [--target macos-arm64] [pip arguments]

What the extra installs is followed by the metadata of what is installed here, with each target's own environment
markers. A wheel without compiled parts fits everywhere and is not asked about; of the others pip lists the files that
the registry has, and those of the version in constraints.txt are compared with the target's tags. Nothing is
downloaded. `make check-platforms` does it; it needs a package registry, and the extra installed here. The last line
counts what is missing; exit 1 where it is anything.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from scripts.requirements import installs, pins

PYTHONS: Final = ("3.11", "3.12", "3.13")
_AT_ONCE: Final = 4
_WHEEL: Final = re.compile(r"\S+/[^/\s]+\.whl\b")


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine: its platform tags, the newest first, and what environment markers say there."""

    platforms: tuple[str, ...]
    system: str
    machine: str

    def tags(self, python: str) -> frozenset[Tag]:
        """What a wheel for it may be tagged with."""
        version = [int(part) for part in python.split(".")]
        interpreter = f"cp{''.join(map(str, version))}"
        own = cpython_tags(version, platforms=self.platforms)
        return frozenset([*own, *compatible_tags(version, interpreter, self.platforms)])

    def markers(self, python: str) -> dict[str, str]:
        """The environment in which markers are read."""
        return {
            "sys_platform": {"Linux": "linux", "Darwin": "darwin"}[self.system],
            "platform_system": self.system,
            "platform_machine": self.machine,
            "python_version": python,
            "python_full_version": f"{python}.0",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }


def _linux(machine: str, glibc: int) -> Target:
    """With a glibc of 2.`glibc`."""
    old = ("manylinux2014", "manylinux2010", "manylinux1")
    names = [*(f"manylinux_2_{minor}" for minor in range(glibc, 4, -1)), *old, "linux"]
    return Target(tuple(f"{name}_{machine}" for name in names), "Linux", machine)


TARGETS: Final[Mapping[str, Target]] = {
    "linux-x86_64": _linux("x86_64", 28),
    "linux-aarch64": _linux("aarch64", 35),
    "macos-arm64": Target(tuple(mac_platforms((14, 0), "arm64")), "Darwin", "arm64"),
}


def fits_everywhere(name: str) -> bool:
    """Whether what is installed here came as a wheel without compiled parts."""
    try:
        wheel = importlib.metadata.distribution(name).read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(line.startswith("Tag: py") and line.endswith("-none-any") for line in wheel.splitlines())


def wheels(name: str, version: str, more: Iterable[str] = ()) -> frozenset[Tag]:
    """The tags of all wheels of this version that pip is shown, for whatever machine."""
    command = [sys.executable, "-m", "pip", "index", "versions", "-vv", "--pre", *more, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = {match.rpartition("/")[2] for match in _WHEEL.findall(done.stdout + done.stderr)}
    parsed = [parse_wheel_filename(unquote(file)) for file in files]
    return frozenset(tag for _, found, _, tags in parsed for tag in tags if found == Version(version))


def missing(extra: str, target: Target, python: str, found: Mapping[str, frozenset[Tag]]) -> tuple[int, list[str]]:
    """How many distributions there are, and those without a pin or a wheel. found: `wheels` of each that is asked."""
    pinned, names = pins(), sorted(installs([extra], target.markers(python)))
    unpinned = [f"{name} (no pin)" for name in names if name not in pinned]
    tags = target.tags(python)
    absent = [f"{name}=={pinned[name]}" for name in names if name in found and not tags & found[name]]
    return len(names), unpinned + absent


def asked(extra: str, more: Iterable[str]) -> dict[str, frozenset[Tag]]:
    """`wheels` of every pinned distribution that some target installs and that does not fit everywhere."""
    everywhere = [target.markers(python) for target in TARGETS.values() for python in PYTHONS]
    pinned = pins()
    names = set().union(*(installs([extra], markers) for markers in everywhere)) & pinned.keys()
    compiled = sorted(name for name in names if not fits_everywhere(name))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(compiled, pool.map(lambda name: wheels(name, pinned[name], more), compiled), strict=True))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", default="label")
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    arguments, more = parser.parse_known_args()
    total: list[str] = []
    found = asked(arguments.extra, more)
    print(f"asked about: {', '.join(found)}")
    for name in arguments.target or TARGETS:
        for python in arguments.python or PYTHONS:
            count, absent = missing(arguments.extra, TARGETS[name], python, found)
            print(f"{name}, Python {python}: {count} packages; without a wheel: {', '.join(absent) or 'none'}")
            total += absent
    print(f"{len(total)} missing")
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
