"""Which files of a model are refused: those that run code when a library reads them.

A pickle is a program. The libraries below us read weights from safetensors, GGUF and OpenVINO's files, which are
data, and from pickles where there is nothing else. So a folder with a pickle that some library would read is refused
before any library sees it. One beside safetensors is left alone, because nothing reads it: loaders ask for
safetensors alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from qrelay.errors import ModelError

_PICKLES: Final = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_SAFE_WEIGHTS: Final = ("model*.safetensors", "adapter_model*.safetensors")
_SHOWN: Final = 5

SAFETENSORS_ALONE: Final[dict[str, Any]] = {"use_safetensors": True, "weights_only": True}
"""What `from_pretrained` is told besides: the second lock on the same door. It wins over the model's own files, which
may ask for the opposite (`model_kwargs` of sentence_bert_config.json)."""


def pickles(paths: Iterable[str]) -> list[str]:
    """Those of a model's files (relative paths, forward slashes) that may hold a pickle and that a library would
    read: no safetensors in the same folder, and not OpenVINO's weights, which lie beside their .xml."""
    files = [PurePosixPath(path) for path in paths]
    safe = {file.parent for file in files if any(fnmatch(file.name, each) for each in _SAFE_WEIGHTS)}
    there = set(files)
    return [
        str(file)
        for file in files
        if file.suffix.lower() in _PICKLES and file.parent not in safe and file.with_suffix(".xml") not in there
    ]


def require_safe(model: Path, paths: Iterable[str]) -> None:
    """Raises ModelError that names the files of this model that are refused, and says what to do."""
    if found := pickles(paths):
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ModelError(
            f"{model} has weights in a format that can run code when it is read: {', '.join(found[:_SHOWN])}{more}. "
            "qrelay reads safetensors, GGUF and OpenVINO's files alone. Fetch the model's safetensors, or convert it "
            "on a machine without secrets (`model.save_pretrained(FOLDER)`, which writes safetensors)."
        )
