"""Install the tools that qrelay has adapters to into .venv-adapters, layered over the environment that runs this.

    .venv/bin/python -m scripts.setup_adapters [pip arguments]      # `make test-adapters` does it

They are many and large, and MLflow pins another version of cachetools than constraints.txt; so they do not go into
.venv. adapters.txt beside this file pins each of their packages that .venv lacks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.layered import layered, pip_install
from scripts.recipes import ROOT

FOLDER = ROOT / ".venv-adapters"
PINS = Path(__file__).with_name("adapters.txt")


def main(pip_arguments: list[str]) -> None:
    """Make the environment; harmless to repeat."""
    layered(FOLDER)
    pip_install(FOLDER, *pip_arguments, "--no-deps", "-r", str(PINS))
    print(f"{PINS.name} is in {FOLDER}")


if __name__ == "__main__":
    main(sys.argv[1:])
