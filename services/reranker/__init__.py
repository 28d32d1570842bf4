"""The reranker: scores each candidate set, keeps the best, marks the judge's sample."""
