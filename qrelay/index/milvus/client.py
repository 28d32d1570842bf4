"""One connection to Milvus: made from the settings, with a limit to every request, and its errors as ours."""

from __future__ import annotations

import logging
from typing import Any, Final

from qrelay.config import secret
from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    CorpusIndexError,
    QrelayError,
    RateLimited,
)
from qrelay.index.milvus.settings import MilvusSettings

_SILENT: Final = logging.CRITICAL + 1
_RATE: Final = (8, 9)
_ABSENT: Final = (100, 1600)
"""Milvus's codes (pkg/util/merr): no such collection, no such alias. Milvus Lite says 100 for both."""
_NODES: Final = (302, "no enough nodes to create replicas")
_KEPT_OUT: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_AWAY: Final = 2
"""Of pymilvus, without a connection, and of a Milvus that is starting or ending."""
_UNLOADED: Final = (101, 103)
_REFUSED: Final = (105, *range(1100, 1200))
"""Codes of what Milvus understood and refuses; others may pass."""
_REFUSED_BY_LITE: Final = 6


class Absent(CorpusIndexError):
    """Milvus has no such collection, or no such alias."""


class Unreachable(BackendUnavailable):
    """No connection to Milvus."""


class Unloaded(BackendUnavailable):
    """The collection is not in the memory of Milvus's query nodes, or not all of it."""


class Milvus:
    """See the module. Safe to share between threads."""

    def __init__(self, settings: MilvusSettings) -> None:
        """
        Raises:
            ConfigError: no address is set, its library or its credentials are absent, or are refused.
            BackendUnavailable: it does not answer.
        """
        if not settings.uri:
            raise ConfigError("retriever.milvus.uri is empty: name the server, http://HOST:19530 say")
        self.settings, self.lite = settings, False
        self._client = self._open(_library())
        version = str(self.ask("get_server_version"))
        self.lite = version.startswith("milvus_lite")

    def _open(self, library: Any) -> Any:
        own = self.settings
        tls = {"server_pem_path": str(own.ca_file)} if own.ca_file else {}
        try:
            return library.MilvusClient(
                uri=own.uri, token=_token(own), db_name=own.database, timeout=own.timeout_s, **tls
            )
        except ConfigError:
            raise
        except Exception as error:  # its own, gRPC's, and those of Milvus Lite's files
            raise self._translated(error, "connecting") from error

    def ask(self, method: str, *args: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """Call a method of pymilvus.MilvusClient. timeout_s: None: the setting's.

        Raises:
            Absent: no such collection or alias.
            Unloaded: the collection must be loaded into memory first.
            CorpusIndexError: Milvus refuses the request.
            ConfigError: it refuses the credentials, or has too few nodes for the replicas.
            BackendUnavailable, BackendTimeout, RateLimited: it cannot answer now.
        """
        try:
            return getattr(self._client, method)(*args, timeout=timeout_s or self.settings.timeout_s, **named)
        except Exception as error:  # pymilvus passes on some of gRPC's own
            raise self._translated(error, method) from error

    def close(self) -> None:
        self._client.close()

    def _translated(self, error: Exception, doing: str) -> QrelayError:
        """What pymilvus raised, as ours."""
        code: Any = getattr(error, "code", None)
        code = code() if callable(code) else code
        status, text = str(getattr(code, "name", "")), str(getattr(error, "message", "") or error)
        said = f"Milvus at {self.settings.uri}, {doing}: {text}"
        if text == "Open local milvus failed":
            return ConfigError(
                f"{said}: is it open in another process? Milvus Lite's files are for one. Start `milvus-lite "
                "server`, or a Milvus server, and name its address in retriever.milvus.uri"
            )
        if status in _KEPT_OUT or "auth check failure" in text:
            return ConfigError(f"{said}: see retriever.milvus.token_env, token_file and the user's rights")
        if code == _NODES[0] or _NODES[1] in text:
            return ConfigError(f"{said}: lower retriever.milvus.replicas, or add query nodes")
        if code in _ABSENT:
            return Absent(said)
        if code in _RATE:
            return RateLimited(said)
        if status == "DEADLINE_EXCEEDED" or "DEADLINE_EXCEEDED" in text:
            return BackendTimeout(f"{said}: no answer in {self.settings.timeout_s:g} s (retriever.milvus.timeout_s)")
        if status == "UNAVAILABLE" or code == _AWAY:
            return Unreachable(said)
        if code in _UNLOADED:
            return Unloaded(said)
        refused = code in _REFUSED or (self.lite and code == _REFUSED_BY_LITE)
        if refused or getattr(error, "is_input_error", False):
            return CorpusIndexError(said)
        return BackendUnavailable(said)


def check(settings: MilvusSettings) -> None:
    """Raises ConfigError: its library or its credentials are absent."""
    _library()
    _token(settings)


def _token(settings: MilvusSettings) -> str:
    """`user:password` or a key; empty where none is set. Raises ConfigError."""
    own = "retriever.milvus"
    return secret(f"{own}.token_env", settings.token_env, f"{own}.token_file", settings.token_file)


def _library() -> Any:
    """pymilvus, which says what it raises once more in its log. Raises ConfigError: it is not installed."""
    try:
        import pymilvus
    except ModuleNotFoundError as error:
        raise ConfigError("the engine milvus needs pymilvus: pip install 'qrelay[milvus]' brings it") from error
    for name in ("pymilvus", *(each for each in logging.root.manager.loggerDict if each.startswith("pymilvus."))):
        logging.getLogger(name).setLevel(_SILENT)
    return pymilvus
