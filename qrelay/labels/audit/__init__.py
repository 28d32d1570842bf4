"""`qrelay audit`: what is wrong with the labels, in figures that a gate can read. One file a check.

`audit.py` reads the ledger once and hands every query to every check; `figures.py` names the figures, `gate.py` holds
them against conditions, `report.py` and `plots.py` show them.
"""
