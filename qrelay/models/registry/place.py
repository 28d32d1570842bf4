"""Which folder is the registry: what is asked for, else the setting, else `registry` in the data folder."""

from __future__ import annotations

from pathlib import Path

from qrelay.config import ServiceSettings
from qrelay.errors import ConfigError
from qrelay.models.registry.registry import Registry
from qrelay.settings import load_settings

SECTION = "all"
"""The settings file's section: the registry is shared."""


def open_registry(folder: Path | None, data_dir: Path, config: Path | None) -> Registry:
    """The registry of a command. `folder`: asked for by name, and then it must be there.

    Raises:
        ConfigError: settings that do not hold, or a folder that is no registry.
    """
    if folder is None:
        return Registry(load_settings(ServiceSettings, SECTION, file=config, data_dir=data_dir).registry_folder)
    if not (folder / "events").is_dir():
        raise ConfigError(f"{folder} is no model registry: it has no events; name another one with --registry")
    return Registry(folder)
