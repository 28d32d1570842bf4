"""Quiet hours: a span of local time, also across midnight, in which no training is started."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start`, inclusive, to `end`, exclusive, by the clocks of a place."""

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: ZoneInfo) -> Self | None:
        """The hours in `text`, such as 22:00-06:00; None where it is empty.

        Raises:
            ValueError: not of that form, or an empty span.
        """
        if not text:
            return None
        found = _SPAN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a span of hours: write it as 22:00-06:00")
        start, end = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
        if start == end:
            raise ValueError(f"{text!r} begins when it ends: leave it empty, or disable the policy")
        return cls(start, end, zone)

    def ends_after(self, now: datetime) -> datetime | None:
        """When the quiet hours that hold at `now` (with a zone) end; None where none do.

        Where clocks go forward past the end, it is the moment to which they jump.
        """
        local = now.astimezone(self.zone)
        clock = local.time().replace(tzinfo=None)
        if self.start < self.end:
            quiet, over_midnight = self.start <= clock < self.end, False
        else:
            quiet, over_midnight = clock >= self.start or clock < self.end, clock >= self.start
        if not quiet:
            return None
        day = local.date() + timedelta(days=over_midnight)
        return datetime.combine(day, self.end, tzinfo=self.zone)
