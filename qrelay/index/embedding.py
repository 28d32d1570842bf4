"""The embedders that a retriever's settings describe, by name: a model of this machine, or an endpoint."""

from __future__ import annotations

from qrelay.errors import ConfigError
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.engines import ENDPOINT_NAME, EncoderEngine
from qrelay.models.served import Load

_SECTION = "retriever.embedder_endpoint"


def loader(settings: RetrieverSettings) -> Load:
    """`load_embedder`, which knows the settings' endpoint too."""

    def load(name: str, *, engine: EncoderEngine = "torch", threads: int = 0, dim: int = 0) -> Embedder:
        if name == ENDPOINT_NAME:
            return _endpoint(settings, dim)
        return load_embedder(name, engine=engine, threads=threads, dim=dim)

    return load


def _endpoint(settings: RetrieverSettings, dim: int) -> Embedder:
    """Asks nothing yet. Raises ConfigError: the settings do not say enough of it, or its key is not set."""
    from qrelay.models.embedding_endpoint import EndpointEmbedder, EndpointModel

    own = settings.embedder_endpoint
    if lacking := own.lacking(_SECTION):
        raise ConfigError("; ".join(lacking))
    if dim > own.dimensions:
        raise ConfigError(f"{dim} dimensions are asked for, and {_SECTION}.dimensions is {own.dimensions}")
    model = EndpointModel(
        api=own.api,
        model=own.model,
        revision=own.revision or own.url.rstrip("/"),
        dimensions=own.dimensions,
        dim=dim,
        texts=own.texts,
        query_prompt=own.query_prompt,
        document_prompt=own.document_prompt,
        normalise=own.normalise,
    )
    return EndpointEmbedder(
        own.url, model, api_key=own.api_key(_SECTION), policy=own.policy(), limits=own.limits(), section=_SECTION
    )
