"""Adapters to other people's tools (docs/integrations.md). Only an adapter's own module imports a tool's library, and
nothing of qrelay imports that module but where the tool is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from qrelay.errors import SetupError

TrackerName = Literal["mlflow", "wandb"]
"""Each has a module `track_NAME`."""


@contextmanager
def library(extra: str) -> Iterator[None]:
    """Around the imports that the extra installs. Raises SetupError: one of them is absent."""
    try:
        yield
    except ImportError as error:
        raise SetupError(f"{error}: pip install 'qrelay[{extra}]' brings it") from error
