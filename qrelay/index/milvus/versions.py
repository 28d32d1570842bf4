"""The collections that Milvus holds, each with the version that its alias names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from pathlib import Path

from qrelay.errors import CorpusIndexError
from qrelay.index.milvus.client import Absent, Milvus
from qrelay.index.milvus.engine import MilvusEngine
from qrelay.index.milvus.layout import ROW, Kept, alias_of, collection_of, kept, versions_of
from qrelay.index.milvus.waiting import make_searchable
from qrelay.index.ranking import Depths
from qrelay.index.settings import RetrieverSettings

_log = logging.getLogger(__name__)


class MilvusVersions:
    """See the module. Connects at its making: raises ConfigError and BackendUnavailable."""

    def __init__(self, settings: RetrieverSettings) -> None:
        self._settings = settings
        self.milvus = Milvus(settings.milvus)

    def marks(self) -> Mapping[str, Hashable]:
        wanted, found = self._settings.collections, {}
        for alias in self.milvus.ask("list_aliases")["aliases"]:
            name = collection_of(alias)
            if name and (not wanted or name in wanted):
                with suppress(Absent):
                    found[name] = current(self.milvus, name)
        return found

    def open(self, name: str) -> MilvusEngine:
        settings = self._settings
        version = kept(self.milvus, current(self.milvus, name))
        make_searchable(self.milvus, version.name, settings.milvus.timeout_s)
        depths = Depths(settings.bm25_top_k, settings.dense_top_k, settings.rrf_k)
        return MilvusEngine(self.milvus, version, depths)

    def reembed_command(self, name: str, model: str) -> str:
        return f"qrelay index reembed --model {model} --collection {name} --out {self._settings.index_folder}"

    def catch_up(
        self, wanted: Callable[[str], str], concerns: Callable[[str, str], bool]
    ) -> tuple[dict[str, Path], list[str]]:
        behind, problems = {}, []
        for name, mark in self.marks().items():
            model = wanted(name)
            try:
                served = kept(self.milvus, str(mark))
                if served.manifest.embedder == model or not concerns(served.manifest.embedder, model):
                    continue
                found = self._like(name, served, model)
                if found is None:
                    behind[name] = self._settings.index_folder / name
                    continue
                self.milvus.ask("alter_alias", found.name, alias_of(name))
                _log.info("switched %s to %s, which was in Milvus", name, found.name)
            except CorpusIndexError as error:
                problems.append(f"{name} cannot be switched to {model}: {error}")
        return behind, problems

    def _like(self, name: str, served: Kept, fingerprint: str) -> Kept | None:
        """A whole version of the same passages with this model's vectors."""
        for version in of_collection(self.milvus, name):
            same = version.passages == served.passages and version.manifest.embedder == fingerprint
            if same and is_whole(self.milvus, version):
                return version
        return None


def current(milvus: Milvus, name: str) -> str:
    """The collection in Milvus that a collection's alias names. Raises Absent."""
    return str(milvus.ask("describe_alias", alias_of(name))["collection_name"])


def of_collection(milvus: Milvus, name: str) -> list[Kept]:
    """All versions of a collection, whole and not, by name."""
    found = []
    for each in sorted(milvus.ask("list_collections")):
        if each.startswith(versions_of(name)):
            with suppress(CorpusIndexError):  # dropped meanwhile, or none of ours
                found.append(kept(milvus, each))
    return found


def is_whole(milvus: Milvus, version: Kept) -> bool:
    """Whether all passages are there and can be searched. Makes them searchable where they are not."""
    make_searchable(milvus, version.name, milvus.settings.wait_s)
    return rows_in(milvus, version.name) == version.manifest.passages - version.manifest.removed


def rows_in(milvus: Milvus, name: str) -> int:
    """Rows that a collection which is loaded holds, each primary key once."""
    (row,) = milvus.ask("query", name, filter=f"{ROW} >= 0", output_fields=["count(*)"], consistency_level="Strong")
    return int(row["count(*)"])
