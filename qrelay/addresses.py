"""Addresses from settings: which of them are of this machine, and whether what goes there is encrypted.

Nothing here resolves a name or connects: a host that is not of this machine by its name or address counts as another
one.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host: a name or an address, an IPv6 one in brackets or not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_here(url: str) -> bool:
    """Whether the URL names this machine; False where it names none."""
    return is_loopback(_host(url))


def host_of(url: str) -> str:
    """The host of a whole server address, SCHEME://[USER:PASSWORD@]HOST[:PORT]; "" where it is none."""
    try:
        parts = urlsplit(url)
        whole = (parts.port or 1) > 0 and not parts.path.strip("/") and not parts.query
    except ValueError:
        return ""
    return (parts.hostname or "") if whole else ""


def _is_away(url: str) -> bool:
    """Whether the URL is whole, and of another machine: what is not whole is refused by who connects."""
    host = host_of(url)
    return bool(host) and not is_loopback(host)


def plain_nats(url: str) -> Sequence[str]:
    """What is wrong with the queues' address for a network that is not trusted; none on this machine. It may hold a
    password in odd characters, so no part of it is shown."""
    servers = [each for each in url.split(",") if not each.startswith(("tls://", "wss://"))]
    if not any(_is_away(each) for each in servers):
        return ()
    return ("nats.url sends plain text to another machine: write tls://, and set tls",)


def plain_http(setting: str, url: str, allowed: Collection[str] = ()) -> Sequence[str]:
    """The same of an endpoint of somebody else's server. allowed: hosts that may be asked in plain text."""
    host = _host(url)
    if not url.lower().startswith("http://") or not host or is_here(url) or host in allowed:
        return ()
    return (f"{setting} sends plain text to another machine: write https://, or name its host in plain_hosts",)


def plain_postgres(setting: str, url: str) -> Sequence[str]:
    """The same of a database's address; none of a file's. Where libpq goes and what it checks may also be in its
    variables; what a service file (`service`, PGSERVICE) names is not known here, so it counts as another machine."""
    if not url.startswith(("postgresql://", "postgres://", "postgresql+")):
        return ()
    try:
        netloc, given = urlsplit(url).netloc, parse_qs(urlsplit(url).query)
    except ValueError:
        netloc, given = "?", {}
    served = "service" in given or bool(os.environ.get("PGSERVICE"))
    mode = given.get("sslmode", ["" if served else os.environ.get("PGSSLMODE", "")])[-1]
    if mode in ("verify-ca", "verify-full") or not (served or any(map(_is_database_away, _hosts(netloc, given)))):
        return ()
    return (
        f"{setting} is on another machine, and its certificate is not checked: add "
        "?sslmode=verify-full&sslrootcert=FILE",
    )


def _hosts(netloc: str, given: Mapping[str, list[str]]) -> Sequence[str]:
    """All hosts and addresses that libpq may take: the URL's, else its variables'."""
    hosts = [each.rpartition("@")[2] for each in netloc.split(",")] + given.get("host", [])
    hosts = hosts if any(hosts) else [os.environ.get("PGHOST", "")]
    return [each for text in (*hosts, *given.get("hostaddr", [os.environ.get("PGHOSTADDR", "")]))
            for each in text.split(",") if each]  # fmt: skip


def _is_database_away(host: str) -> bool:
    """host: a name, an address (an IPv6 one in brackets or not), with a port or without, or a socket's folder."""
    return not (host.startswith("/") or is_loopback(host) or is_loopback(_host(f"//{host}")))
