"""The effective settings of one section: what every service and command begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from qrelay.config import ServiceSettings, Transport
from qrelay.settings.effective import alone, find
from qrelay.settings.record import tell

S = TypeVar("S", bound=ServiceSettings)


def transport_of(data_dir: Path | None, file: Path | None = None) -> Transport:
    """How commands and programs reach the installation of `data_dir`: by section `all`. Raises ConfigError."""
    return find(file, data_dir).settings(ServiceSettings, "all").transport


def load_settings(
    settings: type[S],
    section: str,
    *,
    file: Path | None = None,
    data_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> S:
    """The effective settings of the service `section` in the installation of `data_dir` (empty: the one that the
    settings name); on standard error, how they differ from what its services run with. file: asked for by name.
    environ: the variables of another process, which has `file` and no installation here.

    Raises:
        ConfigError: listing every problem with its field, value and source.
    """
    if environ is not None:
        return alone(file, environ).settings(settings, section)
    effective = find(file, data_dir)
    found = effective.settings(settings, section)
    tell(effective, settings, section)
    return found
