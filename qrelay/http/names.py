"""What an endpoint's errors call the settings that they tell people to change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """section: of the settings, where `url`, `api_key_env` and the limits stand. model: the setting that names what
    is asked for. api: what the URL has to be. one: what one request is about."""

    section: str
    model: str
    api: str
    one: str = "text"
