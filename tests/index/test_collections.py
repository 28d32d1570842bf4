"""What is served while an engine cannot say which versions there are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable
from qrelay.index.collections import Collections
from qrelay.index.engine import Engine
from qrelay.index.settings import RetrieverSettings
from qrelay.index.synthetic import SyntheticEngine
from qrelay.models.embedder import load_embedder
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders


class Away:
    """Versions of an engine that may not answer."""

    def __init__(self) -> None:
        self.answers = True

    def marks(self) -> Mapping[str, Hashable]:
        if not self.answers:
            raise BackendUnavailable("it does not answer")
        return {"docs": 1}

    def open(self, name: str) -> Engine:
        return SyntheticEngine()

    def reembed_command(self, name: str, model: str) -> str:
        return ""


@pytest.fixture
def versions() -> Away:
    return Away()


@pytest.fixture
def collections(versions: Away, tmp_path: Path) -> Collections:
    embedders = Embedders("hash", Registry(tmp_path / "registry"), load_embedder)
    return Collections(versions, RetrieverSettings(embedder="hash", reload_every_s=0), embedders)


def test_a_service_does_not_start_as_if_there_were_no_collection(versions: Away, collections: Collections) -> None:
    versions.answers = False
    with pytest.raises(BackendUnavailable):
        collections.load("")
    versions.answers = True
    collections.load("")
    assert list(collections.served) == ["docs"]


def test_what_is_served_goes_on_being_served(versions: Away, collections: Collections) -> None:
    collections.load("")
    versions.answers = False
    collections.refresh()
    collections.reload()
    assert list(collections.served) == ["docs"]
