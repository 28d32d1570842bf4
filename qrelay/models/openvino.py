"""OpenVINO's models on this processor: what it can compute, and one model compiled. `openvino_copies` makes them.

8-bit weights are multiplied as integers where the processor can (`integer_arithmetic`): OpenVINO then quantises the
activations of each run, in groups of 128. Elsewhere it unpacks them and multiplies floats.
"""

from __future__ import annotations

import contextvars
import ctypes
import mmap
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from qrelay.errors import ModelError

GROUP: Final = 128
"""Activations that share a scale. Measured with AVX-512 VNNI: 128 is fastest; 64 5% slower; 0 and per token gain
nothing."""
_MISSING: Final = "OpenVINO is not installed: run `pip install 'qrelay[openvino]'`, or choose another engine"
Array = npt.NDArray[Any]
Answer = TypeVar("Answer")


@cache
def integer_arithmetic() -> bool:
    """Whether this processor multiplies 8-bit integers faster than floats, so that OpenVINO quantises activations:
    x86-64 with VNNI (AVX-512 or AVX) or AMX, and ARM64 with the dot-product or int8 matrix instructions."""
    flags = _processor_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "FEAT_DotProd", "FEAT_I8MM"})


def _processor_flags() -> frozenset[str]:
    """Names of the processor's instruction sets, as Linux or macOS spells them; empty where neither tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8", "replace").splitlines()
    except OSError:
        return _mac_flags()
    named = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(named, []))


def _mac_flags() -> frozenset[str]:
    names = ("FEAT_DotProd", "FEAT_I8MM")
    return frozenset(name for name in names if _sysctl(f"hw.optional.arm.{name}"))


def _sysctl(name: str) -> int:
    """A number that macOS knows of its hardware; 0 elsewhere."""
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError):
        return 0
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    return value.value if ask(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) == 0 else 0


def activations() -> str:
    """The arithmetic of activations here, for identities: "int8-128" or "float32"."""
    return f"int8-{GROUP}" if integer_arithmetic() else "float32"


def library() -> Any:
    """The package `openvino`, whose converter would report its use to its maker: its telemetry is made absent.

    Raises:
        ModelError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ModelError(_MISSING) from error
    return openvino


class Compiled:
    """An OpenVINO model on this processor, computed in a thread of its own (see `apart`), one request at a time."""

    def __init__(self, file: Path, *, threads: int = 0) -> None:
        """file: the .xml, its .bin beside it, which is memory-mapped and shared by processes. threads: 0 takes the
        number of physical cores that this process may use.

        Raises:
            ModelError: OpenVINO is not installed, or the file is not its own.
        """
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if integer_arithmetic() else 0,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if not integer_arithmetic() and platform.machine() in ("x86_64", "AMD64"):
            # Integer products would go through 16 bits there, which overflow (cosine with float32 of 0.9956 instead
            # of 0.9981 in a statically quantised MiniLM): it is computed in floats, to the same numbers.
            properties["LP_TRANSFORMS_MODE"] = "NO"
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._thread = ThreadPoolExecutor(1, "openvino")
        self._warm = False
        self._thread.submit(self._load, file, properties).result()

    def _load(self, file: Path, properties: Mapping[str, Any]) -> None:
        openvino = library()
        try:
            with file.with_suffix(".bin").open("rb") as weights:
                self._mapped = mmap.mmap(weights.fileno(), 0, access=mmap.ACCESS_COPY)
            # Our own mapping and not OpenVINO's: while it stands, nothing else can be where its pages are given back.
            shared = openvino.Tensor(np.frombuffer(self._mapped, np.uint8), shared_memory=True)
            core = openvino.Core()
            model = core.compile_model(core.read_model(file.read_bytes(), shared), "CPU", properties)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"OpenVINO cannot load {file} ({str(error).splitlines()[0][:200]}): remove the folder {file.parent}, "
                "and it is made again"
            ) from error
        self._request = model.create_infer_request()
        self.inputs = frozenset(each.any_name for each in model.inputs)
        """The names of what it reads."""

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The model's first output; the array is the caller's.

        Raises:
            RuntimeError: what OpenVINO throws.
        """
        return self._thread.submit(self._run, inputs).result()

    def _run(self, inputs: Mapping[str, Array]) -> Array:
        if self._warm:
            return np.array(self._request.infer(inputs)[0])
        with _dropping_pages(self._mapped):  # weights are laid out anew at the first run, beside those of the file
            answer = np.array(self._request.infer(inputs)[0])
        self._warm = True
        return answer


def apart(work: Callable[[], Answer]) -> Answer:
    """What `work` gives, run in a thread of its own: OpenVINO leaves a thread that computes with it a stack for
    signals that is gone, and the next signal that such a thread handles ends the process. The main thread handles
    them, and so must never compute with it."""
    with ThreadPoolExecutor(1, "openvino") as thread:
        return thread.submit(contextvars.copy_context().run, work).result()


@contextmanager
def _dropping_pages(mapped: mmap.mmap, every_s: float = 0.05) -> Iterator[None]:
    """While it lasts, give the pages of a mapped file back again and again: each is read once, and together they
    would count twice. They stay in the system's page cache, where a later reader finds them: nobody writes to them.
    Linux; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        yield
        return
    done = threading.Event()

    def drop() -> None:
        while not done.wait(every_s):
            mapped.madvise(mmap.MADV_DONTNEED)

    dropping = threading.Thread(target=drop, daemon=True, name="drop-pages")
    dropping.start()
    try:
        yield
    finally:
        done.set()
        dropping.join()
        mapped.madvise(mmap.MADV_DONTNEED)
