"""When a certificate ends, and by when it should have been renewed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from qrelay.config import TlsSettings

_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Validity:
    """renew_by: from then on a third of its lifetime is left, or a week, whichever is shorter."""

    ends: datetime
    renew_by: datetime


def validity(certificate: bytes) -> Validity | None:
    """Of the first certificate of a PEM file; None: it cannot be read, which OpenSSL may see otherwise."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    except ValueError:
        return None
    return Validity(ends, ends - min((ends - begins) / 3, _WEEK))


def valid_until(tls: TlsSettings) -> str:
    """Until when the process's own certificate holds, for people; "" where there is none to read."""
    with suppress(OSError):
        found = validity(tls.certificate.read_bytes()) if tls.certificate else None
        return f"until {found.ends:%Y-%m-%d %H:%M} UTC" if found else ""
    return ""
