"""Which engine and which judge suit this machine: chosen once an installation, kept, and shown.

The processor is measured (`speed`): of the engines whose labels are equally good (docs/judge.md has the figures) the
fastest is taken; where two are within a tenth, the one that takes less memory. Then the largest judge that reads at
least `WANTED` prompt tokens a second and fits into memory, else the smallest.

The choice is `<data_dir>/tuned.yaml`: the lowest layer of the installation's settings (`qrelay.settings`). Services
only read it, so that replicas agree; an installation that has labels keeps what made them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.models.catalogue import Catalogue, judges
from qrelay.models.records import ModelEntry
from qrelay.models.speed import OPENVINO, TRANSFORMERS
from qrelay.parsing import yaml_document
from qrelay.settings.sources import TUNED_NAME

WANTED: Final = 80.0
"""Prompt tokens a second: some 25 passages of 150 words, a query's, in a minute and a half."""
_ALIKE: Final = 0.9
_RUN_BYTES: Final = {OPENVINO: 1.25, "bfloat16": 2.6, "float32": 4.8}
"""Bytes of memory a weight takes while the model answers, by engine or dtype, beside the libraries' own."""
_UNPACK_BYTES: Final = {OPENVINO: 2.9, "bfloat16": 2.6, "float32": 4.6}
"""The same while its copy is made."""
_LIBRARIES_BYTES: Final = 1.2e9
_OTHERS_BYTES: Final = 1.5e9
"""What the other services and NATS take."""


@dataclass(frozen=True, slots=True)
class Judging:
    """One way to judge on this machine. memory_bytes: the most of preparing and answering, by estimate."""

    engine: str
    model: str
    tokens_per_second: float
    memory_bytes: float


def choose(
    rates: Mapping[str, float], dtype: str, memory_bytes: float, catalogue: Catalogue
) -> tuple[Judging, list[Judging]]:
    """What to judge with, and every judge that was looked at, largest first.

    rates: `speed.weights_per_second`. dtype: PyTorch's on this processor. memory_bytes: available.

    Raises:
        ConfigError: the catalogue has no judge.
    """
    engine = _fastest(rates)
    looked_at = [_judging(engine, entry, rates[engine], dtype) for entry in judges(catalogue)]
    if not looked_at:
        raise ConfigError("the catalogue (QRELAY_CATALOGUE) has no judge: add one, or set judge.model yourself")
    room = memory_bytes - _OTHERS_BYTES
    able = (each for each in looked_at if each.tokens_per_second >= WANTED and each.memory_bytes <= room)
    return next(able, looked_at[-1]), looked_at


def _fastest(rates: Mapping[str, float]) -> str:
    """The engine; 8-bit weights where speeds are alike, as they take a third of the memory."""
    if rates.get(OPENVINO, 0.0) >= _ALIKE * rates[TRANSFORMERS]:
        return OPENVINO
    return TRANSFORMERS


def _judging(engine: str, entry: ModelEntry, rate: float, dtype: str) -> Judging:
    weights = entry.weights
    kind = OPENVINO if engine == OPENVINO else dtype
    a_weight = max(_RUN_BYTES[kind], _UNPACK_BYTES[kind])
    return Judging(engine, entry.name, rate / weights, weights * a_weight + _LIBRARIES_BYTES)


def document(
    chosen: Judging, looked_at: list[Judging], rates: Mapping[str, float], texts: Mapping[str, float], others: float
) -> dict[str, Any]:
    """What tuned.yaml holds: the settings, and what they follow from. texts: a second, of the embedder by engine.
    others: the share of the processors that other programs took meanwhile."""
    return {
        "settings": {"judge": {"backend": chosen.engine, "model": chosen.model}, **encoders(texts)},
        "chosen": {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "processor": processor(),
            "billion_weights_per_second": {engine: round(rate / 1e9, 1) for engine, rate in rates.items()},
            "texts_per_second": {engine: round(rate, 1) for engine, rate in texts.items()},
            "wanted_tokens_per_second": WANTED,
            "others_took": round(others, 2),
            "judges": [
                {
                    "model": each.model,
                    "tokens_per_second": round(each.tokens_per_second),
                    "memory_gb": round(each.memory_bytes / 1e9, 1),
                }
                for each in looked_at
            ],
        },
    }


def encoders(texts: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """The settings of retriever and reranker: 8 bits only where they are faster by a tenth, as vectors differ in the
    third decimal. texts: a second, by engine; empty: nothing is known, and PyTorch stays."""
    if texts and texts["openvino"] >= (2 - _ALIKE) * texts["torch"]:
        return {"retriever": {"embedder_engine": "openvino"}, "reranker": {"engine": "openvino"}}
    return {}


def read(data_dir: Path) -> dict[str, Any] | None:
    """The installation's choice; None where none was made.

    Raises:
        ConfigError: the file is not what `write` writes.
    """
    try:
        found = yaml_document((data_dir / TUNED_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {data_dir / TUNED_NAME} ({error}): remove it and run `qrelay models tune`"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise ConfigError(f"{data_dir / TUNED_NAME} has no settings: remove it and run `qrelay models tune`")
    return found


def write(data_dir: Path, chosen: Mapping[str, Any]) -> Path:
    """Keep the choice; the file."""
    head = "# Written by `qrelay models tune`. Your own settings win: name judge.backend and judge.model there.\n"
    write_atomic(data_dir / TUNED_NAME, head + yaml.safe_dump(dict(chosen), sort_keys=False))
    return data_dir / TUNED_NAME


def processor() -> str:
    """The processor's name and what of its arithmetic matters here, for people."""
    from qrelay.models.dtypes import native_dtype
    from qrelay.models.openvino import integer_arithmetic

    integers = "multiplies 8-bit integers" if integer_arithmetic() else "no 8-bit integer arithmetic"
    floats = "computes in bfloat16" if native_dtype("cpu") == "bfloat16" else "no bfloat16"
    return f"{processor_name()} ({integers}, {floats})"


def processor_name() -> str:
    """The processor's name, as Linux or Python knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8", "replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
