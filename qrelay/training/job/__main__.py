"""`python -m qrelay.training.job JOB.json`: the same as `qrelay train --job JOB.json`."""

from __future__ import annotations

from qrelay.cli.job import main

if __name__ == "__main__":
    main()
