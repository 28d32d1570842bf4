"""Reconciliation: every query that the feed was told is safe is in exactly one final state, or in flight.

    journal ──► accepted ┐
    streams ──► in flight ├─► Evidence ──► Report ──► repair
    ledger  ──► ended     ┘

`evidence.py` holds the facts on disk and decides; `reconcile.py` collects them from a running
installation and repairs.
"""
