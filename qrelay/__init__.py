"""qrelay turns a stream of queries into qrels, training triples and better retrieval models.

One folder an idea; docs/architecture.md has the map and the layers.
"""

__version__ = "0.1.0"
