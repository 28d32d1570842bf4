"""Commands on the ledger, without a service: export, push, mine, audit, label, ledger, reconcile, training."""
