"""Waiting in stations with several servers.

    Erlang C (Erlang 1917)     the share of arrivals that wait in M/M/k, and how long
    Cosmetatos (1976)          M/D/k, from M/M/k
    Kimura (1986)              M/G/k, between M/M/k and M/D/k by the service times' variation
    Allen and Cunneen (1978)   GI/G/k: the same for arrivals that are not Poisson
    Reiser and Lavenberg       throughput of a closed network (mean value analysis, 1980), stations with several
                               servers by Seidmann et al. (1987): one that is k times as fast, and the rest of the
                               time as delay

Rates are per second, times seconds. cs2: squared coefficient of variation of service times: 0 constant, 1
exponential.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Of one station. share: of arrivals that wait; mean: of all arrivals, those that do not wait included."""

    share: float
    mean: float

    def quantile(self, q: float) -> float:
        """By an exponential tail, which is exact for M/M/k; 0 where fewer than 1 - q wait."""
        if self.share <= 1 - q:
            return 0.0
        return self.mean / self.share * math.log(self.share / (1 - q))

    @property
    def variance(self) -> float:
        """Of a wait that is 0 or, for `share`, exponential."""
        return self.mean**2 * (2 / self.share - 1) if self.share else 0.0


def erlang_c(offered: float, servers: int) -> float:
    """P(wait) of M/M/k. offered: arrival rate times service time, below `servers`; by the recursion of Erlang's B."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def waiting(rate: float, service_s: float, servers: int, cs2: float = 1.0, ca2: float = 1.0) -> Wait:
    """Of a station: Kimura's M/G/k where ca2 (of the gaps between arrivals) is 1, else Allen and Cunneen's GI/G/k.
    Infinite where more arrives than is served."""
    offered = rate * service_s
    if offered >= servers:
        return Wait(1.0, math.inf)
    if not offered:
        return Wait(0.0, 0.0)
    share = erlang_c(offered, servers)
    exponential = share * service_s / (servers - offered)
    if ca2 != 1:
        return Wait(share, (ca2 + cs2) / 2 * exponential)
    load = offered / servers
    constant = exponential / 2 * (1 + (1 - load) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * offered))
    if cs2 > 1:  # interpolation would turn negative
        return Wait(share, (1 + cs2) / 2 * exponential)
    return Wait(share, (1 + cs2) / (2 * cs2 / exponential + (1 - cs2) / constant))


@dataclass(frozen=True, slots=True)
class Demand:
    """A station of a closed network: seconds a customer in all, and servers; 0: a delay, where nobody waits."""

    seconds: float
    servers: int = 1


def closed_throughput(demands: Sequence[Demand], customers: int) -> float:
    """Customers a second that pass a closed network in which so many go round."""
    queues = [each.seconds / each.servers for each in demands if each.servers]
    delay = sum(
        each.seconds * (each.servers - 1) / each.servers if each.servers else each.seconds for each in demands
    )
    waiting_at = [0.0] * len(queues)
    rate = 0.0
    for number in range(1, customers + 1):
        spent = [seconds * (1 + length) for seconds, length in zip(queues, waiting_at, strict=True)]
        rate = number / (delay + sum(spent))
        waiting_at = [rate * seconds for seconds in spent]
    return rate


def sojourn_quantile(services: Sequence[tuple[float, float]], waits: Sequence[Wait], q: float) -> float:
    """The q-quantile of a passage through stations one after another, by a gamma distribution of the same mean and
    variance. services: mean and cs2 of each."""
    from scipy.stats import gamma

    mean = sum(seconds for seconds, _ in services) + sum(wait.mean for wait in waits)
    variance = sum(cs2 * seconds**2 for seconds, cs2 in services) + sum(wait.variance for wait in waits)
    if not math.isfinite(mean) or variance <= 0:
        return mean
    return float(gamma.ppf(q, mean**2 / variance, scale=variance / mean))
