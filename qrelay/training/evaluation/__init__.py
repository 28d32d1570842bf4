"""How good a retriever or reranker is: runs, measures, paired tests, report."""
