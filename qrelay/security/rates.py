"""How often a caller may ask: `access.rates`, counted in this process's memory.

    rates = Rates(settings.access.rates)
    rates.take(principal, context.peer())        # RateExceeded: too often; it says when they may ask again

A rate of n a period lets n calls come at once, then one every period/n (a leaky bucket: two numbers, however many
calls). Several rates of one caller all hold. Who is not named in the settings has the rate of `*`, each by
themselves; of these the _MOST who asked last are told apart, and those beyond share one rate, so that no flood of
names or addresses takes memory without end.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import unquote

from qrelay.errors import RateExceeded
from qrelay.parsing import rates_of
from qrelay.security.identity import Kind, Principal

OTHERS: Final = "*"
_MOST: Final = 10_000
"""Callers of the rate `*` who are told apart, about 300 bytes each."""
_NETWORK_BITS: Final = 64
"""Of an IPv6 address that make a caller: one customer has all addresses of such a network."""
_NOISE_S: Final = 1e-6
"""Seconds that rounding may make out of none."""
_PORTED: Final = ("ipv4", "ipv6")
_MOST_CHARS: Final = 200

now = time.monotonic


@dataclass(slots=True)
class _Bucket:
    """What a caller has asked, by rate, and when it was last looked at: it runs out at that rate's speed."""

    levels: list[float]
    at: float


@dataclass(frozen=True, slots=True)
class _Limit:
    """What one line of the settings says. name: as it stands there."""

    name: str
    rates: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return "; ".join(f"{most} calls in {seconds} s" for most, seconds in self.rates)

    def new(self) -> _Bucket:
        """Of who has asked nothing."""
        return _Bucket([0.0] * len(self.rates), now())

    def run_out(self, bucket: _Bucket) -> None:
        """Brings a bucket to this moment."""
        passed, bucket.at = now() - bucket.at, now()
        for place, (most, seconds) in enumerate(self.rates):
            bucket.levels[place] = max(0.0, bucket.levels[place] - passed * most / seconds)

    def wait_s(self, bucket: _Bucket) -> float:
        """Seconds until one call more fits into every rate; of a bucket of this moment."""
        return max(
            (level + 1 - most) * seconds / most
            for level, (most, seconds) in zip(bucket.levels, self.rates, strict=True)
        )


class Rates:
    """See the module. One for a server; use from one thread."""

    def __init__(self, rates: Mapping[str, str]) -> None:
        limits = {name: _Limit(name, rates_of(rate)) for name, rate in rates.items()}
        self.on = bool(limits)
        self._others = limits.pop(OTHERS, None)
        self._named = {_key(name): limit for name, limit in limits.items()}
        self._buckets = {key: limit.new() for key, limit in self._named.items()}
        self._known: OrderedDict[str, _Bucket] = OrderedDict()
        self._crowd = _Bucket([0.0] * len(self._others.rates) if self._others else [], now())

    def take(self, caller: Principal, peer: str, most_s: float = 0.0) -> float:
        """Counts a call of this caller, or, of one whom nobody knows, of the address that it came from (a host, or as
        gRPC writes it): seconds for which it has to wait, at most `most_s`.

        Raises:
            RateExceeded: it would have to wait for longer. The call is not counted.
        """
        limit = self._limit(caller)
        if limit is None:
            return 0.0
        bucket = self._bucket(limit, caller, peer)
        limit.run_out(bucket)
        wait_s = limit.wait_s(bucket)
        if wait_s > most_s + _NOISE_S:
            raise RateExceeded(
                f"{_shown(caller)} may make {limit} (access.rates, {limit.name}): ask again {_in(wait_s)}",
                retry_after_s=wait_s,
            )
        bucket.levels = [level + 1 for level in bucket.levels]
        return max(0.0, wait_s)

    def line(self, caller: Principal) -> str:
        """The line of the settings that holds for the caller, by its name there; "": none does."""
        limit = self._limit(caller)
        return limit.name if limit else ""

    def _limit(self, caller: Principal) -> _Limit | None:
        return self._named.get(str(caller), self._others)

    def _bucket(self, limit: _Limit, caller: Principal, peer: str) -> _Bucket:
        if limit is not self._others:
            return self._buckets[str(caller)]
        key = place_of(peer) if caller.kind is Kind.LOCAL else str(caller)
        if key in self._known:
            self._known.move_to_end(key)
        elif self._room(limit):
            self._known[key] = limit.new()
        return self._known.get(key) or self._crowd

    def _room(self, limit: _Limit) -> bool:
        """Whether one caller more can be told apart, once those who asked longest ago and have their whole rate again
        are forgotten."""
        while self._known:
            first = next(iter(self._known.values()))
            limit.run_out(first)
            if any(first.levels):
                break
            self._known.popitem(last=False)
        return len(self._known) < _MOST


def _key(name: str) -> str:
    """A caller's name in the settings as `Principal` writes it."""
    return name if name.startswith(f"{Kind.SERVICE}/") else f"{Kind.PERSON}/{name}"


def _shown(caller: Principal) -> str:
    return "this address" if caller.kind is Kind.LOCAL else str(caller)


def _in(seconds: float) -> str:
    return f"in {math.ceil(100 * seconds) / 100:g} s"


def place_of(peer: str) -> str:
    """The machine, or its IPv6 network, of a peer as gRPC names it (ipv6:[::1]:50051), or of a host."""
    scheme, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]") if scheme in _PORTED else unquote(peer)
    with suppress(ValueError):
        address = ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return str(ip_network((address, _NETWORK_BITS), strict=False)) if address.version == 6 else str(address)
    return host[:_MOST_CHARS]
