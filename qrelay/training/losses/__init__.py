"""Loss terms by name, and their weighted sum as one loss of sentence-transformers."""
