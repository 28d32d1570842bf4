"""Whether a collection that a person names exists here, before work is done for a mistyped one.

It exists where an index of it was built, the retriever serves it, or the ledger holds queries of it. Where none of
these can be asked (queries are fed to a NATS elsewhere, nothing was ever built here, the retriever serves without
indexes), nobody knows, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qrelay.errors import QrelayError, UnknownCollection
from qrelay.identity import require_collection
from qrelay.nearest import did_you_mean, listed
from qrelay.rundir import endpoints

_ANSWER_S: Final = 5.0
_ENTRY: Final = "collection."
"""How the retriever's GetInfo begins what it tells of a collection: `collection.NAME.key`."""
_NO_INDEX: Final = "no index"


def check_collection(collection: str, data_dir: Path, config: Path | None, *, elsewhere: bool = False) -> None:
    """Let a collection pass that exists here, or that nobody here can know. `elsewhere`: the services are another
    installation's, so that indexes here say nothing.

    Raises:
        InvalidQuery: no collection can have this name.
        UnknownCollection: there is no such collection; the text names those that there are.
    """
    require_collection(collection)
    known: set[str] = set()
    asked = False
    for found in _sources(collection, data_dir, config, elsewhere=elsewhere):
        if found is None:
            continue
        if collection in found:
            return
        known |= found
        asked = True
    if not asked:
        return
    held = in_ledger(data_dir, config)
    if collection in held:
        return
    raise UnknownCollection(
        f"no collection {collection!r} is here: there is no index of it, and no label in the ledger."
        f"{did_you_mean(collection, known | held)} There are: {listed(known | held, 'none yet')}. "
        f"`qrelay index build SOURCE --collection {collection}` makes its index"
    )


def _sources(collection: str, data_dir: Path, config: Path | None, *, elsewhere: bool) -> Iterator[set[str] | None]:
    """What each can say of indexes, the quickest first; None: nothing."""
    if not elsewhere:
        yield indexed(data_dir / "index") or None
    yield served(data_dir, collection)
    if not elsewhere:
        yield configured(data_dir, config)


def indexed(folder: Path) -> set[str]:
    """The collections with a current version in a folder of indexes."""
    return {path.parent.name for path in folder.glob("[!.]*/CURRENT")}


def configured(data_dir: Path, config: Path | None) -> set[str] | None:
    """Those in the retriever's index folder, or of an engine elsewhere, where its settings name them; None: they do
    not, or cannot be read."""
    from qrelay.settings import load_settings
    from qrelay.settings.sections import settings_of

    try:
        settings = load_settings(settings_of("retriever"), "retriever", file=config, data_dir=data_dir)
    except QrelayError:
        return None
    if getattr(settings, "engine", "") == "http":
        return set(getattr(settings, "collections", ()))
    folder = getattr(settings, "index_dir", None)
    return indexed(folder) if folder else None


def served(data_dir: Path, collection: str) -> set[str] | None:
    """What the retriever that runs from the data folder serves, `collection` among them where it needs no index or
    does not say; None: none answers."""
    running = endpoints(data_dir).get("retriever")
    if running is None:
        return None
    from qrelay.runtime.client import channel
    from qrelay.settings.load import transport_of
    from qrelay.v1 import retriever_pb2, retriever_pb2_grpc

    try:
        with channel(running.grpc, transport_of(data_dir)) as opened:
            stub = retriever_pb2_grpc.RetrieverServiceStub(opened)
            details = stub.GetInfo(retriever_pb2.RetrieverServiceGetInfoRequest(), timeout=_ANSWER_S).info.details
    except QrelayError:
        return None
    found = {key.removeprefix(_ENTRY).partition(".")[0] for key in details if key.startswith(_ENTRY)}
    return found if found or details.get("note", "").startswith(_NO_INDEX) else {collection}


def in_ledger(data_dir: Path, config: Path | None) -> set[str]:
    """Those that this installation's ledger holds queries of; none where there is no ledger to read."""
    from qrelay.labels.lineage.side import open_side

    try:
        with open_side(None, data_dir, config) as side:
            return set(side.collections()) if side else set()
    except QrelayError:
        return set()
