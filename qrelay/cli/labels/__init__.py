"""The sink's commands, on the ledger itself."""
