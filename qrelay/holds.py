"""What waits, since when, until when, and why: one line for logs, GetInfo and `qrelay top`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self


def utc_now() -> datetime:
    """The clock of what people read, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Hold:
    """A wait. why: for people; reason: the stable word of its error, where it has one."""

    why: str
    until: datetime
    reason: str = ""
    since: datetime = field(default_factory=utc_now)

    @classmethod
    def lasting(cls, seconds: float, why: str, reason: str = "", now: datetime | None = None) -> Self:
        """One that begins now; now: by the clock of who waits, where it has its own."""
        since = now or utc_now()
        return cls(why, since + timedelta(seconds=seconds), reason, since)

    def going_on(self, other: Hold) -> Hold:
        """`other`, as the same wait as this one."""
        return replace(other, since=self.since)

    def __str__(self) -> str:
        """Since when, until when, and why; times in UTC."""
        return f"since {shown(self.since)}, until {shown(self.until)}: {self.why}"


def shown(moment: datetime) -> str:
    """A moment for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
