"""The ledger and what becomes of labels: which label counts, mining, exports, audit, reconciliation, lineage."""
