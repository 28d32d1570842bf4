"""A model as a Hugging Face folder: what `transformers` and `vllm` load.

A folder is taken as it is. A GGUF file is dequantised once by transformers' GGUF reader and written below the model
home, `.converted/<revision>-<dtype>`: reading it again takes seconds instead of the minute that dequantising
1.5 billion weights takes on one core. The copy is as large as its dtype says, 2 or 4 bytes a weight, and may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from qrelay.errors import ModelError
from qrelay.models.home import models_dir

log = logging.getLogger(__name__)

_DONE = "config.json"


def weights_folder(path: Path, revision: str, dtype: str, *, home: Path | None = None) -> Path:
    """The folder with the weights of `path`: itself, or the converted copy of a GGUF, made where it is absent.

    revision: of the file's bytes (its sha256, shortened or not). dtype: "bfloat16" or "float32". home: the model
    home. Processes that ask at the same time convert once.

    Raises:
        ModelError: no weights of an architecture that transformers reads, or no room to write the copy.
    """
    if path.is_dir():
        return path
    copies = (home or models_dir()) / ".converted"
    target = copies / f"{revision}-{dtype}"
    try:
        if (target / _DONE).is_file():
            return target
        copies.mkdir(parents=True, exist_ok=True)
        with FileLock(copies / f"{target.name}.lock"):
            if not (target / _DONE).is_file():
                _write(path, target, dtype)
    except OSError as error:
        raise ModelError(
            f"cannot write the converted copy of {path.name} to {copies} ({error}): make room there, or set "
            "QRELAY_MODELS_DIR to a folder that can be written"
        ) from error
    return target


def _write(path: Path, target: Path, dtype: str) -> None:
    """All of it under another name first: a killed process leaves no half copy."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    log.info("converting %s to %s: once, up to a minute for each billion weights", path.name, dtype)
    try:
        unfinished.chmod(0o755)
        with _bars_for_people():
            _convert(path, unfinished, dtype)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(unfinished, target)  # noqa: PTH105 (a folder, replaced as a whole)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _bars_for_people() -> Iterator[None]:
    """The libraries' progress bars on a terminal only: in a service's log or a script's output they are noise. Log
    handlers keep the stream that they were made with, so nothing else is lost."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def _convert(path: Path, target: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=getattr(torch, dtype), **source, **_dense()
        )
    except Exception as error:  # the reader raises whatever the bytes provoke
        raise ModelError(
            f"transformers cannot read {path.name} ({type(error).__name__}: {str(error)[:200]}): check that it is a "
            "GGUF of an architecture that transformers converts, or give the model's Hugging Face folder"
        ) from error
    _check_dense(path, model)
    model.hf_quantizer = None  # the weights are plain now; the copy must not say that they are GGUF
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _dense() -> dict[str, Any]:
    """Ask for plain weights: newer versions of transformers leave them packed where they have kernels for that,
    older ones always unpack."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _check_dense(path: Path, model: Any) -> None:
    packed = [name for name, values in model.named_parameters() if not values.is_floating_point()]
    if packed:
        raise ModelError(
            f"transformers left {len(packed)} weights of {path.name} quantised ({packed[0]}): give the model's "
            "Hugging Face folder"
        )
