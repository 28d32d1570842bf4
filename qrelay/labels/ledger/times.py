"""Times as the ledger keeps them: integers, microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(when: datetime) -> int:
    """A time with a zone as microseconds since 1970 UTC, exactly."""
    since = when - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(microseconds_utc: int) -> datetime:
    """The inverse of `microseconds`."""
    return _EPOCH + microseconds_utc * _MICROSECOND
