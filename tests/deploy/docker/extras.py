"""What each image is for, and what has no business in it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping

from packaging.utils import canonicalize_name

from scripts.requirements import extras, named

BROUGHT_ALONG: Mapping[str, str] = {
    "jinja2": "torch",
    "jsonschema": "mcp",
    "orjson": "pymilvus",
    "scikit-learn": "sentence-transformers",
    "scipy": "sentence-transformers",
    "threadpoolctl": "sentence-transformers",
}
"""Libraries that an image may hold though only another part's extra names them, for one that it needs needs them."""


COMMANDS = ("main", "config", "dlq", "down", "healthcheck", "serve")
"""Commands of every image, which need no extra."""
OWN: Mapping[str, list[str]] = {
    "retriever": ["qrelay.services.retriever", "qrelay.cli.index"],
    "reranker": ["qrelay.services.reranker"],
    "judge": ["qrelay.services.judge", "qrelay.cli.judge", "qrelay.cli.queries"],
    "sink": ["qrelay.services.sink", "qrelay.cli.labels", "qrelay.cli.feed"],
    "console": ["qrelay.web", "qrelay.cli.console", "qrelay.cli.mcp"],
    "trainer": ["qrelay.training", "qrelay.cli.train", "qrelay.cli.eval", "qrelay.cli.rounds"],
}
"""What each image is for: its service or its job, and the commands whose extra it has."""
WITHOUT: Mapping[str, set[str]] = {
    # The page of an audit, and queries in datasets, other extras; asking endpoints, whose store `forget` reads.
    "sink": {"jinja2", "matplotlib", "datasets", "httpx"},
    # Queries in Parquet and datasets, which nobody sends over HTTP; asking endpoints, and fitting maps.
    "console": {"datasets", "pyarrow", "httpx", "sklearn"},
    # Queries in Parquet and datasets.
    "reranker": {"datasets", "pyarrow"},
    # Other extras: an engine, `qrelay judge eval` beside BM25 and of trained judges, its report, the ledger, queries
    # in datasets.
    "judge": {
        *("vllm", "bm25s", "Stemmer", "krippendorff", "matplotlib", "datasketch", "orjson"),
        *("datasets", "pyarrow", "ir_measures"),
    },
    # Answers by a judge's engine, and a model that another engine runs; an evaluation's diagrams.
    "trainer": {"vllm", "xllamacpp", "gguf", "openvino", "matplotlib"},
}
"""Libraries that an image's code can import and that are not in the image, by choice; what needs them says so."""


def code_of(image: str) -> list[str]:
    """Modules and packages whose imports an image must satisfy."""
    return [*OWN[image], "qrelay.runtime", *(f"qrelay.cli.{command}" for command in COMMANDS)]


def foreign(names: Iterable[str]) -> set[str]:
    """Distributions that only other parts of qrelay, or its developers, name: an image of `names` holds none of them,
    but for those that its own libraries bring along."""
    own = named(names)
    return named(extras()) - own - {name for name, bringer in BROUGHT_ALONG.items() if bringer in own}


def importable(distributions: Iterable[str]) -> set[str]:
    """The top-level names that these distributions, or Python itself, make importable, as they are installed here."""
    wanted = set(distributions)
    return {
        name
        for name, bringers in importlib.metadata.packages_distributions().items()
        if wanted & {canonicalize_name(bringer) for bringer in bringers}
    }
