"""Reads of the ledger for people's pages: fast at any size, on SQLite and PostgreSQL, and never a write.

    queries.py   lists of queries: search, filters, sorting, pages by key
    letters.py   lists of dead letters, likewise
    one.py       one query whole: passages, scores, every judge's label, people's grades, what mining made of it
    people.py    who graded how much, and how far people agree
    thresholds.py   what thresholds of P(relevant) would take, by judge
    choices.py   what a list can be narrowed to: collections, judges, rounds

A list reads the rows of `queries` alone: what it sorts and filters by is kept there (`ledger/summaries.py`).
"""
