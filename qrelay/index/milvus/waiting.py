"""Waiting for what Milvus does by itself after a request: it must get further within `milvus.wait_s`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from qrelay.errors import BackendTimeout
from qrelay.index.milvus.client import Milvus
from qrelay.index.milvus.layout import SPARSE, VECTOR
from qrelay.progress import step

_POLL_S: Final = 0.2
_WHOLE: Final = 100


def make_searchable(milvus: Milvus, name: str, patience_s: float) -> None:
    """Load a collection into the memory of query nodes, unless it is there. Raises BackendTimeout."""
    from pymilvus.client.types import LoadState

    state = milvus.ask("get_load_state", name)
    if state["state"] == LoadState.Loaded:
        return
    if state["state"] != LoadState.Loading:
        milvus.ask("load_collection", name, replica_number=milvus.settings.replicas, _async=True)

    def look() -> tuple[float, float]:
        found = milvus.ask("get_load_state", name)
        return _WHOLE if found["state"] == LoadState.Loaded else float(found.get("progress", 0)), _WHOLE

    _wait(f"loading {name} into Milvus's memory", "%", look, patience_s)


def wait_for_indexes(milvus: Milvus, name: str) -> None:
    """Wait until every row is in the indexes of vectors and terms. Raises BackendTimeout."""

    for field in (VECTOR, SPARSE):
        look = partial(_indexed, milvus, name, field)
        _wait(f"Milvus's index of {field}", "passages", look, milvus.settings.wait_s)


def _indexed(milvus: Milvus, name: str, field: str) -> tuple[float, float]:
    facts: dict[str, Any] | None = milvus.ask("describe_index", name, field)
    if facts is None:
        return 0, 1  # not there yet
    total, pending = float(facts.get("total_rows", 0)), float(facts.get("pending_index_rows", 0))
    return total - pending, total


def _wait(what: str, unit: str, look: Callable[[], tuple[float, float]], patience_s: float) -> None:
    """look: (done, total), as it is now."""
    done, total = look()
    last, moved_at = done, time.monotonic()
    with step(what, total=total, unit=unit, done=done) as waiting:
        while done < total:
            if time.monotonic() - moved_at > patience_s:
                raise BackendTimeout(f"{what}: {done:,.0f} of {total:,.0f} {unit}, no further in {patience_s:g} s")
            time.sleep(_POLL_S)
            done, total = look()
            if done != last:
                waiting.advance(done - last)
                last, moved_at = done, time.monotonic()
