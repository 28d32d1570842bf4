"""The sections of settings beside `all`, and the class that says what stands in each; imported when asked for."""

from __future__ import annotations

import importlib
from typing import Final

from qrelay.config import ServiceSettings

SERVICES: Final = ("judge", "reranker", "retriever", "sink")
"""Names of the services, sorted; each has a section of its own."""
CONSOLE: Final = "console"
"""What `qrelay up` starts beside the services, unless console.enabled is false."""
CLASSES: Final = {
    "console": "qrelay.web.settings:ConsoleSettings",
    "judge": "qrelay.judging.settings:JudgeSettings",
    "reranker": "qrelay.services.reranker.settings:RerankerSettings",
    "retriever": "qrelay.index.settings:RetrieverSettings",
    "sink": "qrelay.labels.settings:SinkSettings",
    "trainer": "qrelay.training.settings:TrainerSettings",
}
"""Section -> module and class."""


def settings_of(section: str) -> type[ServiceSettings]:
    """The section's settings class."""
    module, _, name = CLASSES[section].partition(":")
    found: type[ServiceSettings] = getattr(importlib.import_module(module), name)
    return found


def settings_classes() -> dict[str, type[ServiceSettings]]:
    """Every section's settings class, `all` first."""
    return {"all": ServiceSettings} | {section: settings_of(section) for section in CLASSES}
