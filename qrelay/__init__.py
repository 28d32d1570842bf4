"""qrelay turns a stream of queries into qrels, training triples and better retrieval models.

    from qrelay import Client

One folder an idea; docs/architecture.md has the map and the layers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qrelay.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The client, imported when it is asked for: nothing else of qrelay needs it."""
    if name in ("AsyncClient", "Client"):
        import importlib

        return getattr(importlib.import_module("qrelay.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
