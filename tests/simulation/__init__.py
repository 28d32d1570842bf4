"""The pipeline in a simulated world: one thread, simulated time, every choice drawn from a seed that replays exactly.

    make simulate SEEDS=1000 START=1         or  python -m tests.simulation --seeds 1000
    python -m tests.simulation --seed 7      replays one seed; with -v, event by event
    make simulate-faults                     puts old faults back, one by one: each has to be found

Real: worker, batcher, cores and stages of the four services, wire format, ledger and its SQL. Simulated: time,
threads, network, broker (`qrelay.runtime.memory`), the database's presence, the models (the shipped fakes).

| file | holds |
|---|---|
| `plan.py` | what a seed does: queries, odd messages, faults, weather; a function of the seed |
| `loop.py` | the event loop on simulated time; processes that are killed and frozen; threads that run inline |
| `network.py`, `store.py` | what lies between a process and the broker; the ledger's database |
| `cores.py` | the services' parts, and the labels of a run without faults |
| `hostile.py`, `faults.py` | the tables of odd messages and of what breaks |
| `installation.py` | the services as processes |
| `world.py` | one seed from its start to its end |
| `checker.py` | what must hold at every step, and what must have happened in the end |
| `mutations.py` | old faults and invented ones, put back to see that they are found |
| `run.py`, `__main__.py` | many seeds; the command |
"""
