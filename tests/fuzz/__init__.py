"""Fuzzing: every reader of bytes from outside, fed with mutants of what qrelay itself writes.

    make fuzz SECONDS=600                               # all parsers
    python -m tests.fuzz --parser envelope --file F     # replays one input

`parsers.py` is the table, `mutants.py` makes the inputs, `attempt.py` says what a parser may do with one,
`readers.py` finds the readers in the source that need an entry.
"""
