"""Foreign errors of NATS as qrelay's, and in words what a server does not allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import nats.errors
import nats.js.errors

from qrelay.errors import BackendTimeout, BackendUnavailable, ConfigError, Overloaded, Oversized, QrelayError

NAME_IN_USE: Final = 10058
"""A stream of this name stands with other values."""
UNDECLARED: Final = (
    "the queues are not declared: the services declare them, so start these (`qrelay up`), or give --nats the address"
    " of the NATS that they use. Where NATS has users, `qrelay nats declare` does it"
)
OFF: Final = "JetStream is off at this NATS server: add `jetstream {}` to its configuration"
_STREAM_FULL: Final = (10077, 10148)  # "maximum messages/bytes exceeded", and its clustered form
_FIVE_STREAMS: Final = (
    "five streams of nats.max_stream_bytes: raise it (max_file_store, where it is not set, is three quarters of the"
    " disk's free space), or set nats.max_stream_bytes lower"
)
_LIMITS: Final = {
    10002: "the account's storage is too small for five streams of nats.max_stream_bytes: raise its max_file, or set"
    " nats.max_stream_bytes lower",
    10005: "fewer servers of the cluster can hold a stream than nats.replicas: start the others, or set it lower",
    10023: f"the servers' max_file_store is too small for {_FIVE_STREAMS}",
    10026: "the account allows fewer consumers than qrelay's 37, nine a queue and one: raise its max_consumers",
    10027: "the account allows fewer streams than qrelay's five beside its others: raise its max_streams",
    10039: "JetStream is off for this user's account: enable it there",
    10047: f"max_file_store, or the account's max_file, is too small for {_FIVE_STREAMS}",
    10065: "another stream takes subjects qrelay.v1.>: remove it, or use another account",
    10074: "nats.replicas is above 1, and this server belongs to no cluster: set it to 1",
    10076: OFF,
    10121: "the server's or the account's max_ack_pending is below nats.max_ack_pending: raise it, or set that lower",
    10122: "the account's disk_max_stream_bytes is below nats.max_stream_bytes: raise it, or set that lower",
}
"""The server's error code -> which limit stands in the way of the queues, and what to set."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Foreign errors as qrelay's; a test asserts that none of nats-py's classes is left out."""
    try:
        yield
    except QrelayError:
        raise
    except nats.js.errors.APIError as error:
        if error.err_code in _LIMITS:
            raise ConfigError(f"NATS: {_LIMITS[error.err_code]} (it answers {error.description!r})") from error
        if error.err_code in _STREAM_FULL or "exceeded" in (error.description or ""):
            raise Overloaded(f"{what}: the stream is full, its consumers have to catch up first") from error
        raise BackendUnavailable(f"{what}: JetStream answered {error.code} {error.description}") from error
    except nats.js.errors.NoStreamResponseError as error:
        raise BackendUnavailable(
            f"{what}: no stream answers. Either its servers have no majority, or {UNDECLARED}"
        ) from error
    except nats.errors.MaxPayloadError as error:
        raise Oversized(
            f"{what}: above the NATS server's max_payload; raise it and nats.max_message_bytes"
        ) from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise BackendTimeout(f"{what}: NATS did not answer in time") from error
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise BackendUnavailable(f"{what}: {type(error).__name__}: {error}") from error
