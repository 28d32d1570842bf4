"""Hard positives and hard negatives: pure functions of one query's records."""
