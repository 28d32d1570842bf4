"""What `qrelay index reembed` does: each collection of a folder re-embedded by one model, one after another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.errors import CorpusIndexError, InputError
from qrelay.exitcodes import EXIT_BUSY, EXIT_FAILED
from qrelay.index.manifest import collections_in
from qrelay.index.reembed import Reembedded, only_one, reembed_held
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.engines import EncoderEngine
from qrelay.models.registry import BI_ENCODER, Registry
from qrelay.models.served import Load, load_version
from qrelay.nearest import did_you_mean
from qrelay.progress import Listener, Progress, heard, listening, shown

FROM_REGISTRY: Final = "registry"


@dataclass(frozen=True, slots=True)
class Job:
    """`model`: "registry" for the promoted version, or an embedding model's name. `collections`: empty: all in `out`.
    `threads`: of the engine, 0: its choice. `parent`: process that it ends with. `engine` and `dim`, kept of its
    vectors: of a model that is not from the registry, whose versions run in torch and whole."""

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
        InputError: nothing is promoted, or a promoted version is wanted in another engine than torch.
        ModelError: the model is absent or damaged.
        CorpusIndexError: there is no such index, or another process re-embeds it.
    """
    if job.model == FROM_REGISTRY and job.engine != "torch":
        raise InputError("promoted versions run in torch, in which the gate measured them: leave --engine away")
    if job.niceness:
        os.nice(job.niceness)
    homes = collections_in(job.out)
    unknown = sorted(set(job.collections) - set(homes))
    if unknown or not homes:
        raise CorpusIndexError(
            f"{job.out} has no index of {', '.join(unknown) or 'any collection'}; build it with `qrelay index build`."
            + (did_you_mean(unknown[0], homes) if unknown else "")
        )
    chosen = {name: homes[name] for name in job.collections or homes}
    with ExitStack() as held, shown(), listening(_bound(heard(), job.parent)):
        _hold(held, chosen.values(), job)
        embedder, version = _model(job, load)
        wanted = _still_serves(job, version)
        return [_row(name, reembed_held(home, embedder, wanted)) for name, home in chosen.items()]


def nothing_promoted(job: Job) -> bool:
    """Whether the job is for the promoted version and there is none: so it is until the first one."""
    return job.model == FROM_REGISTRY and Registry(job.registry).serving(BI_ENCODER) is None


def _hold(held: ExitStack, homes: Iterable[Path], job: Job) -> None:
    """Be the only process that re-embeds these, before a model is loaded for nothing."""
    try:
        for home in homes:
            held.enter_context(only_one(home))
    except CorpusIndexError:
        if job.parent is None:
            raise
        sys.exit(EXIT_BUSY)


def _still_serves(job: Job, version: str) -> Callable[[], bool]:
    registry = Registry(job.registry)

    def answer() -> bool:
        served = registry.serving(BI_ENCODER) if version else None
        return not version or (served is not None and served.version == version)

    return answer


def _model(job: Job, load: Load) -> tuple[Embedder, str]:
    """(the embedder, its version in the registry or "")."""
    if job.model != FROM_REGISTRY:
        return load(job.model, engine=job.engine, threads=job.threads, dim=job.dim), ""
    registry = Registry(job.registry)
    served = registry.serving(BI_ENCODER)
    if served is None:
        raise InputError(f"no bi-encoder is promoted in {job.registry}: give --model the name of an embedding model")
    return load_version(registry, served.version, load, job.threads), served.version


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
