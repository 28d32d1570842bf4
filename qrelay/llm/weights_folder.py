"""A model as a Hugging Face folder: what `transformers` and `vllm` load.

A folder is taken as it is. A GGUF file is dequantised once by transformers' GGUF reader and kept below the model home
(`qrelay.models.prepared`): reading it again takes seconds instead of the minute that dequantising 1.5 billion weights
takes on one core. The copy is as large as its dtype says, 2 or 4 bytes a weight.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qrelay.errors import ModelError
from qrelay.models.loading import ONE_AT_A_TIME
from qrelay.models.prepared import Room, prepared
from qrelay.models.safe import SAFETENSORS_ALONE
from qrelay.progress import Step, step

_WEIGHTS_A_BYTE = 1.65
"""Weights in a byte of a GGUF of 4 bits and something, the usual one."""
_LIBRARIES_BYTES = 1.2e9
"""What PyTorch and the tokenizer's lists take while a model is unpacked."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights_folder(path: Path, revision: str, dtype: str, *, home: Path | None = None, smaller: str = "") -> Path:
    """The folder with the weights of `path`: itself, or the converted copy of a GGUF, made where it is absent.

    revision: of the file's bytes (its sha256, shortened or not). dtype: "bfloat16" or "float32". home: the model
    home. smaller: what to do where memory or disk are too small. Processes that ask at the same time convert once.

    Raises:
        ModelError: no weights of an architecture that transformers reads, or no room for the copy.
    """
    if path.is_dir():
        return path
    copy = weights_in(path) * _BYTES[dtype]
    room = Room(disk_bytes=copy, memory_bytes=copy + path.stat().st_size + _LIBRARIES_BYTES)
    what = f"{path.stem} unpacked to {dtype}"
    make = functools.partial(_convert, path, dtype)
    return prepared(f"{revision}-{dtype}", make, room, what, smaller=smaller, home=home)


def weights_in(path: Path) -> float:
    """About how many weights a GGUF or a folder of safetensors (16 bits each) holds."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2
    return path.stat().st_size * _WEIGHTS_A_BYTE


def load_unpacked(path: Path, dtype: str) -> tuple[Any, Any]:
    """(model, tokenizer) of transformers, the weights plain and in `dtype`, of a GGUF or a folder.

    Raises:
        ModelError: transformers cannot read it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of a loss, which nobody wants of it
    logging.disable_progress_bar()  # qrelay shows its own
    source: dict[str, Any] = {"trust_remote_code": False} | ({} if path.is_dir() else {"gguf_file": path.name})
    folder = path if path.is_dir() else path.parent
    try:
        with ONE_AT_A_TIME, _bars_for_people(), _read_once():
            with step(f"reading the tokenizer of {path.stem}"):
                tokenizer = AutoTokenizer.from_pretrained(folder, **source)
            with step(f"unpacking {path.stem}", unit="million weights") as unpacking, _told(unpacking):
                more = SAFETENSORS_ALONE if path.is_dir() else _dense()
                model: Any = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=getattr(torch, dtype), **source, **more
                )
    except Exception as error:  # the reader raises whatever the bytes provoke
        raise ModelError(
            f"transformers cannot read {path.name} ({type(error).__name__}: {str(error)[:200]}): check that it is a "
            "GGUF of an architecture that transformers converts, or give the model's Hugging Face folder"
        ) from error
    _check_dense(path, model)
    model.hf_quantizer = None  # the weights are plain now; a copy must not say that they are GGUF
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval(), tokenizer


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """While it lasts, transformers reads a GGUF's header once instead of three times: half a minute of Python for
    150 000 tokens on a slow core."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


@contextlib.contextmanager
def _told(unpacking: Step) -> Iterator[None]:
    """While it lasts, every tensor of a GGUF that transformers unpacks advances the step."""
    import gguf

    reader, unpack = gguf.GGUFReader, gguf.dequantize

    def opened(file: Any) -> Any:
        found = reader(file)
        unpacking.at(0, total=sum(int(tensor.n_elements) for tensor in found.tensors) / 1e6)
        return found

    def told(*arguments: Any, **named: Any) -> Any:
        values = unpack(*arguments, **named)
        unpacking.advance(values.size / 1e6)
        return values

    gguf.GGUFReader, gguf.dequantize = opened, told
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.dequantize = reader, unpack


@contextlib.contextmanager
def _bars_for_people() -> Iterator[None]:
    """The libraries' progress bars on a terminal only: in a service's log or a script's output they are noise. Log
    handlers keep the stream that they were made with, so nothing else is lost."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def _convert(path: Path, dtype: str, target: Path) -> None:
    model, tokenizer = load_unpacked(path, dtype)
    with step(f"writing {path.stem} in {dtype}"):
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
