"""The sink: commits judged sets to the ledger. gRPC and queue endpoints; the work is in `qrelay.labels`."""
