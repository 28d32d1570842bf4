"""The inside of a container: its volumes at their mount paths, a read-only root, then the command in this process.

Run under `unshare --mount` in a user namespace (see kubelet.py): python container.py SPEC.json
Uses the standard library alone, because it runs before anything of the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def mount(*arguments: str, keep: tuple[int, ...] = ()) -> None:
    """mount(8), loudly; `keep`: descriptors that it inherits."""
    subprocess.run(["mount", *arguments], check=True, pass_fds=keep)


def put_back(programs: dict[str, int]) -> None:
    """The programs that a volume has hidden, where they were: an image would bring its own. path -> descriptor,
    which still holds what was there; without -c mount(8) would look the path up again."""
    for path, descriptor in programs.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.path.samestat(Path(path).stat(), os.fstat(descriptor)):
            mount("-c", "--bind", f"/proc/self/fd/{descriptor}", path, keep=(descriptor,))
            mount("-o", "remount,bind,ro", path)


def make_root(spec: dict[str, Any]) -> None:
    """An empty /srv, the volumes, the Services' names, and everything else read-only."""
    programs = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in spec["programs"]}
    mount("-t", "tmpfs", "tmpfs", "/srv")
    mount("--bind", spec["hosts"], "/etc/hosts")
    Path(spec["cwd"]).mkdir(parents=True, exist_ok=True)
    last = sorted(spec["mounts"], key=lambda each: each["path"] == "/tmp")  # which hides the other sources
    for each in last:
        if each["path"].startswith("/srv/"):
            Path(each["path"]).mkdir(parents=True, exist_ok=True)
        mount("--bind", each["source"], each["path"])
        if each["read_only"]:
            mount("-o", "remount,bind,ro", each["path"])
    put_back(programs)
    if spec["read_only_root"]:
        mount("-o", "remount,bind,ro", "/")
        mount("-o", "remount,ro", "/srv")


def main() -> None:
    """Set up and become the command."""
    spec = json.loads(Path(sys.argv[1]).read_text("utf8"))
    make_root(spec)
    os.chdir(spec["cwd"])
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])


if __name__ == "__main__":
    main()
