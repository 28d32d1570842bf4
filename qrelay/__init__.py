"""qrelay turns a stream of queries into qrels, training triples and better retrieval models.

This package is what the services share; it imports none of them. See docs/architecture.md for the map.
"""

__version__ = "0.1.0"
