"""`python -m trainer.job JOB.json`: the same as `qrelay train --job JOB.json`."""

from __future__ import annotations

from trainer.job.command import main

if __name__ == "__main__":
    main()
