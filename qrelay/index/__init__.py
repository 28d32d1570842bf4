"""The retriever's index: documents cut into passages, BM25, vectors; building, searching, re-embedding."""
