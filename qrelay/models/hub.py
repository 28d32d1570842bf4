"""Fetch a model's files from a Hugging Face hub.

`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` and the proxy variables mean what they mean to huggingface_hub.
That library retries an unreachable hub for half a minute a file, so one short probe goes first.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from qrelay.errors import BackendUnavailable
from qrelay.models.records import HubSource, ModelEntry
from qrelay.progress import watching

PROBE_TIMEOUT_S = 5.0


def fetch_from_hub(
    entry: ModelEntry,
    source: HubSource,
    staging: Path,
    into: Path,
    report: Callable[[float], None],
    environ: Mapping[str, str],
) -> None:
    """Put the model's files into the folder `into`. An interrupted fetch resumes from `staging`. `report` hears of
    the bytes that are here, a few times a second.

    Raises BackendUnavailable with a reason for people when the hub does not deliver.
    """
    if environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise BackendUnavailable("HF_HUB_OFFLINE is set, so the hub is not asked")
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    endpoint = environ.get("HF_ENDPOINT") or constants.ENDPOINT
    probe(endpoint)
    disable_progress_bars()
    download = staging / "hub"
    with watching(download, report):
        for file in entry.files:
            remote = source.files.get(file.path, file.path)
            try:
                fetched = hf_hub_download(
                    source.repo, remote, revision=source.revision, local_dir=download, endpoint=endpoint
                )
            except Exception as error:  # any failure of the library means: this source does not deliver
                raise BackendUnavailable(f"{remote}: {first_line(error)}") from error
            target = into / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fetched, target)


def probe(endpoint: str, timeout_s: float = PROBE_TIMEOUT_S) -> None:
    """Raises BackendUnavailable unless the endpoint answers within `timeout_s`, name lookup included."""
    answer: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: answer.put(_ask(endpoint, timeout_s)), daemon=True).start()
    try:
        problem = answer.get(timeout=timeout_s + 1.0)
    except queue.Empty:
        problem = f"no answer within {timeout_s:.0f} s"
    if problem:
        raise BackendUnavailable(f"{endpoint} cannot be reached: {problem}")


def _ask(endpoint: str, timeout_s: float) -> str:
    """What is wrong with the endpoint; "" when it answers."""
    from huggingface_hub import get_session

    try:
        response = get_session().head(endpoint, timeout=timeout_s)
    except Exception as error:  # from a bad URL to a proxy's refusal
        return first_line(error)
    return f"it answers {response.status_code}" if response.status_code >= 500 else ""


def first_line(error: BaseException) -> str:
    """The error's first line, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
