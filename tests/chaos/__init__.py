"""The fault harness: a real installation, things that break while it works, and a checker that trusts nobody.

    make chaos SEEDS=20 QUERIES=300          or  python -m tests.chaos --seeds 20 --queries 300
    python -m tests.chaos --seed 7           replays one seed's schedule

| file | holds |
|---|---|
| `schedule.py` | what breaks, and when: a function of the seed |
| `faults.py` | the table of faults: one function a kind, which says whether it really happened |
| `scene.py` | the installation under test, its feed, its disk, its database |
| `evidence.py`, `checker.py` | what is there afterwards; what that says of every query |
| `cluster.py`, `cluster_run.py` | three NATS servers; their faults, and the command that runs them |
| `run.py`, `report.py`, `__main__.py` | one seed; the table and the last line; the command |
"""
