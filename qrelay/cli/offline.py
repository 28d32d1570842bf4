"""What a service may not do unasked: fetch from a model hub, or report its use to anybody."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Final

OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Read by libraries when they are imported. OpenVINO's and vLLM's own reports are off where they are loaded."""


def stay_offline(environ: MutableMapping[str, str] = os.environ, *, publishes: bool = False) -> None:
    """Before any library is imported. A variable that is set already stands: HF_HUB_OFFLINE=0 is a choice. publishes:
    the sink, which loads no model, and reaches a hub where `sink.publish` names one."""
    for name, value in OFFLINE.items():
        if not (publishes and name.endswith("_OFFLINE")):
            environ.setdefault(name, value)
