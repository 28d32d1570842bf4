"""Files that are a function of the ledger."""
