"""One model at a time is loaded in a process: transformers changes torch and itself while it loads, and two loads
that overlap leave that behind (weights that nobody filled: "Cannot copy out of meta tensor", in every later load)."""

from __future__ import annotations

import threading
from typing import Any, Final, Literal

from qrelay.errors import ModelError
from qrelay.models.engines import EncoderEngine
from qrelay.models.records import ResolvedModel
from qrelay.models.safe import SAFETENSORS_ALONE

ONE_AT_A_TIME: Final = threading.Lock()


def load_encoder(
    kind: Literal["SentenceTransformer", "CrossEncoder"],
    model: ResolvedModel,
    length: int,
    *,
    engine: EncoderEngine = "torch",
    threads: int = 0,
    device: str = "",
) -> Any:
    """The library's model of this kind in a folder, never of a hub, cut to texts (pairs) of `length` tokens.

    threads: of torch, for the whole process, or of OpenVINO, for this model; 0: the library's choice. device: as
    torch names it; "": a GPU where there is one; openvino runs on the CPU.

    Raises:
        ModelError: it cannot be had, or OpenVINO cannot convert it.
    """
    try:
        import sentence_transformers
        import torch
        from transformers.utils import logging
    except ImportError as error:
        raise ModelError(f"an encoder needs {error.name}: run `pip install 'qrelay[embed]'`") from error
    logging.disable_progress_bar()  # qrelay shows its own
    if threads:
        torch.set_num_threads(threads)
    where = ("cpu" if engine == "openvino" else device) or None
    try:
        with ONE_AT_A_TIME:
            found = getattr(sentence_transformers, kind)(
                str(model.path), local_files_only=True, device=where, model_kwargs=dict(SAFETENSORS_ALONE)
            )
    except Exception as error:  # the libraries raise whatever the bytes provoke
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{model.path} needs code that comes with the model, which qrelay never runs: choose a model that "
                "sentence-transformers loads by itself, or serve it elsewhere and ask it as an endpoint"
            ) from error
        raise ModelError(
            f"sentence-transformers cannot load {model.path} ({error}). Give a folder that holds a {kind}."
        ) from error
    found.max_seq_length = length
    if engine == "openvino":
        from qrelay.models.openvino_encoders import use_openvino

        use_openvino(found, model, pairs=kind == "CrossEncoder", threads=threads)
    return found
