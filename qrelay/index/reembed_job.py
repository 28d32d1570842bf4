"""What `qrelay index reembed` does: each collection of a folder re-embedded by one model, one after another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.errors import CorpusIndexError, InputError
from qrelay.exitcodes import EXIT_BUSY, EXIT_FAILED
from qrelay.index.manifest import collections_in, homes_of
from qrelay.index.reembed import Reembedded, only_one, reembed_held
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.engines import EncoderEngine
from qrelay.models.registry import BI_ENCODER, Registry, slot_of
from qrelay.models.served import Load, load_version
from qrelay.progress import Listener, Progress, heard, listening, shown

FROM_REGISTRY: Final = "registry"


@dataclass(frozen=True, slots=True)
class Job:
    """`model`: "registry" for the version that serves each collection, or an embedding model's name. `collections`:
    empty: all in `out`. `threads`: of the engine, 0: its choice. `parent`: process that it ends with. `engine` and
    `dim`, kept of its vectors: of a model that is not from the registry, whose versions run in torch and whole."""

    out: Path
    collections: tuple[str, ...]
    model: str
    registry: Path
    threads: int = 0
    niceness: int = 0
    parent: int | None = None
    engine: EncoderEngine = "torch"
    dim: int = 0


def run(job: Job, load: Load = load_embedder) -> list[dict[str, Any]]:
    """Do it; one row a collection. `load`: the model.

    Raises:
        InputError: nothing is promoted for any collection, or for one that was named; or a promoted version is wanted
            in another engine than torch.
        ModelError: the model is absent or damaged.
        CorpusIndexError: there is no such index, or another process re-embeds it.
    """
    if job.model == FROM_REGISTRY and job.engine != "torch":
        raise InputError("promoted versions run in torch, in which the gate measured them: leave --engine away")
    if job.niceness:
        os.nice(job.niceness)
    chosen = homes_of(job.out, job.collections)
    with ExitStack() as held, shown(), listening(_bound(heard(), job.parent)):
        _hold(held, chosen.values(), job)
        rows = {}
        for embedder, version, names in _models(job, load, list(chosen)):
            for name in names:
                wanted = _still_serves(job, name, version)
                rows[name] = _row(name, reembed_held(chosen[name], embedder, wanted))
        return [rows[name] for name in chosen if name in rows]


def nothing_promoted(job: Job) -> bool:
    """Whether the job is for promoted versions and there is none: so it is until the first one."""
    if job.model != FROM_REGISTRY:
        return False
    serving = Registry(job.registry).serving_all(BI_ENCODER)
    return not any(serving.of(name) for name in job.collections or collections_in(job.out) or ("",))


def _hold(held: ExitStack, homes: Iterable[Path], job: Job) -> None:
    """Be the only process that re-embeds these, before a model is loaded for nothing."""
    try:
        for home in homes:
            held.enter_context(only_one(home))
    except CorpusIndexError:
        if job.parent is None:
            raise
        sys.exit(EXIT_BUSY)


def _still_serves(job: Job, collection: str, version: str) -> Callable[[], bool]:
    registry = Registry(job.registry)

    def answer() -> bool:
        served = registry.serving(slot_of(BI_ENCODER, collection)) if version else None
        return not version or (served is not None and served.version == version)

    return answer


def _models(job: Job, load: Load, names: list[str]) -> Iterator[tuple[Embedder, str, list[str]]]:
    """(the embedder, its version in the registry or "", the collections to embed by it), one model after another."""
    if job.model != FROM_REGISTRY:
        yield load(job.model, engine=job.engine, threads=job.threads, dim=job.dim), "", names
        return
    registry = Registry(job.registry)
    for version, served in _by_version(job, registry, names).items():
        yield load_version(registry, version, load, job.threads), version, served


def _by_version(job: Job, registry: Registry, names: list[str]) -> Mapping[str, list[str]]:
    """The collections that each version serves. One that the configured model serves is left alone, unless the job
    names it."""
    serving, found = registry.serving_all(BI_ENCODER), dict[str, list[str]]()
    for name in names:
        if served := serving.of(name):
            found.setdefault(served.version, []).append(name)
        elif name in job.collections:
            raise InputError(
                f"no bi-encoder is promoted for {name} in {job.registry}: give --model the name of an embedding model"
            )
    if not found:
        raise InputError(f"no bi-encoder is promoted in {job.registry}: give --model the name of an embedding model")
    return found


def _row(name: str, made: Reembedded) -> dict[str, Any]:
    facts = made.manifest
    return {
        "collection": name,
        "folder": str(made.folder),
        "version": facts.version,
        "embedder": facts.embedder,
        "passages": facts.passages,
        "passages_per_second": facts.passages_per_second,
        "already": made.already,
        "switched": made.switched,
        "resumed_passages": made.resumed,
        "reused": facts.reused,
    }


def _bound(listener: Listener, parent: int | None) -> Listener:
    """The listener, which ends the process between two shards once the one that started it has ended."""

    def told(progress: Progress) -> None:
        listener(progress)
        if parent is not None and os.getppid() != parent and not progress.finished:
            sys.exit(EXIT_FAILED)

    return told
