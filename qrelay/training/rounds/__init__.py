"""Rounds: `qrelay rounds`. Retrieve and rerank with what serves, judge, train, gate, promote, swap; and again.

state.py          rounds.json: what is done, so that a killed run resumes
installation.py   the services: those that run, or a `qrelay up` of our own; feeding; what they serve
rounds.py         the loop
plan.py           --dry-run: what would happen, and how many judgments at most
table.py          the table at the end
"""
