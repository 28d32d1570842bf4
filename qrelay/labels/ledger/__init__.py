"""The ledger: tables, what writes them, and what reads them. `Ledger` (ledger.py) is the way in."""
