"""What can be found wrong before anything is started: settings, ports, models. All problems at once."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterable, Mapping

from qrelay.cli.serve import load_definition
from qrelay.config import ServiceSettings
from qrelay.errors import ConfigError, PortInUse, SetupError
from qrelay.settings import find
from qrelay.settings.sections import CONSOLE, settings_of


def checked_settings(environs: Mapping[str, Mapping[str, str]]) -> dict[str, ServiceSettings]:
    """Every service's settings, as its process will read them from its environment, by service.

    Raises:
        ConfigError: some do not hold, or their service cannot load with them; all of them are in the text.
    """
    settings: dict[str, ServiceSettings] = {}
    problems = []
    for name, environ in environs.items():
        try:
            if name == CONSOLE:
                settings[name] = _console(environ)
                continue
            definition = load_definition(name)
            settings[name] = find(environ=environ).settings(definition.settings, name)
            definition.check(settings[name])
        except SetupError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError("nothing was started:\n" + "\n".join(problems))
    return settings


def _console(environ: Mapping[str, str]) -> ServiceSettings:
    """The console's settings. Raises ConfigError: they do not hold, or its libraries are not installed."""
    try:
        importlib.import_module("qrelay.web.app")
    except ImportError as error:
        raise ConfigError(
            f"it cannot start: {error}; pip install 'qrelay[console]', or set console.enabled to false"
        ) from error
    return find(environ=environ).settings(settings_of(CONSOLE), CONSOLE)


def refuse_taken(addresses: Iterable[tuple[str, str]]) -> None:
    """addresses: (what for, host:port); port 0 is always free.

    Raises:
        PortInUse: some are taken; all of them are in the text.
    """
    taken = [f"{what} {address}" for what, address in addresses if not _free(address)]
    if taken:
        raise PortInUse(
            f"taken: {', '.join(taken)}. Stop what listens there (another `qrelay up` on another folder?), or choose"
            " --port-base; 0 takes free ports"
        )


def _free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if port == "0":
        return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True
