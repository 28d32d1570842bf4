"""The settings that every HTTP endpoint has: where it is, and how it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field

from qrelay.config import Section, secret
from qrelay.http.pacing import Policy

if TYPE_CHECKING:
    from qrelay.http.connection import Limits


class HttpSettings(Section):
    """A section of a service's settings; `policy`, `limits` and `api_key` make a `Connection` of it."""

    url: str = Field("", description="Base URL, without credentials")
    api_key_env: str = Field("", description="Name of the environment variable with the API key; empty: no key")
    api_key_file: Path | None = Field(None, description="File with the API key, instead of a variable")
    concurrency: int = Field(
        32,
        ge=1,
        le=1024,
        description="Maximum simultaneous requests; fewer while the endpoint refuses, fails or is silent",
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Seconds of silence until a request is given up")
    total_timeout_s: float = Field(
        120.0, gt=0, description="Seconds for one request, all retries, waits and slow replies included"
    )
    max_reply_bytes: int = Field(
        4 * 1024**2, ge=1024, description="Maximum bytes of one reply, unpacked; of a longer one the rest is not read"
    )
    max_pause_s: float = Field(
        3600.0, gt=0, description="Maximum seconds of a pause that the endpoint asks for; then it is asked again"
    )
    retry_refused_s: float = Field(
        60.0,
        gt=0,
        description="Seconds until an endpoint that refuses the key, the account or a parameter is asked again; "
        "messages wait meanwhile",
    )
    max_retries: int = Field(
        5, ge=0, description="Attempts after the first: 408, 409, 425, 429, 5xx, silence, no connection"
    )
    retry_base_s: float = Field(0.5, gt=0, description="Maximum seconds before the first retry; doubles each time")
    breaker_failures: int = Field(
        8, ge=1, description="Consecutive requests that failed for good after which the next ones fail at once"
    )
    breaker_s: float = Field(15.0, ge=0, description="Seconds that requests fail at once before the next is tried")

    def policy(self) -> Policy:
        """When it is asked."""
        return Policy(**self.model_dump(include={each.name for each in fields(Policy)}))

    def limits(self) -> Limits:
        """What a reply may cost."""
        from qrelay.http.connection import Limits  # its HTTP library is loaded where an endpoint is asked

        return Limits(**self.model_dump(include={each.name for each in fields(Limits)}))

    def api_key(self, section: str) -> str:
        """Empty where none is asked for. section: what errors call it.

        Raises:
            ConfigError: its variable is not set, or its file cannot be read.
        """
        own = f"{section}.api_key"
        return secret(f"{own}_env", self.api_key_env, f"{own}_file", self.api_key_file)

    def problems(self, section: str, who: str, path: str = "") -> Iterator[str]:
        """What is wrong with the address and the limits of a section that is in use. who: needs it; path: how its URL
        ends."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield f"{who} needs {section}.url as http(s)://host[:port]{path}, not {self.url!r}"
        if parts.username or parts.password:
            yield f"{section}.url holds credentials: name a variable in {section}.api_key_env instead"
        if self.total_timeout_s < self.request_timeout_s:
            yield f"{section}.total_timeout_s is below {section}.request_timeout_s: no request could end"
