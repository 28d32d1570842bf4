"""Who calls a server, and whether they may call it now: the first that every call and request meets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qrelay.errors import RateExceeded
from qrelay.runtime import telemetry
from qrelay.security.access import Gate
from qrelay.security.identity import ANYBODY, Principal


async def admitted(gate: Gate, auth: Mapping[str, Iterable[bytes]], bearer: str, peer: str) -> Principal:
    """Who calls, as `Gate.identify`, counted as one call of theirs; of one whom nobody knows, as one of their
    address's. Raises RateExceeded too, whoever calls: before it says that they are unknown."""
    caller = ANYBODY
    try:
        caller = await gate.identify(auth, bearer)
    finally:
        count(gate, caller, peer)
    return caller


def count(gate: Gate, caller: Principal, peer: str, most_s: float = 0.0) -> float:
    """One call more of the caller: seconds until it is its turn, at most `most_s`. Raises RateExceeded: later."""
    try:
        return gate.rates.take(caller, peer, most_s)
    except RateExceeded:
        telemetry.RATE_LIMITED.labels(gate.rates.line(caller)).inc()
        raise
