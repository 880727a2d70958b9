"""Cron expressions: when a scheduled job runs next. Pure; times are nanoseconds since the epoch, the zone is UTC.

Five fields, as in crontab(5): minute, hour, day of month, month, day of week (0 and 7 are Sunday). Each is `*`, or a
list of numbers, names (JAN, MON), ranges and steps: `*/15`, `1-5`, `10-50/20`, `MON,WED`. When both day fields are
restricted, a day that satisfies either of them counts (the rule of Vixie's cron; a field that begins with `*` is not
restricted). @hourly, @daily, @weekly, @monthly and @yearly are short for what they say.
"""

from __future__ import annotations

import calendar
import datetime
from dataclasses import dataclass

from .times import SECOND

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_YEARS = 8  # 29 February comes at least so often (1896, 1904; 2096, 2104)
_MINUTE = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Schedule:
    """The minutes at which something is due."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Raises ValueError, saying which field is wrong, also for a schedule that never comes (31 February)."""
        words = _MACROS.get(text.strip().lower(), text).split()
        if len(words) != len(_FIELDS):
            raise ValueError(
                f"{text!r} is no schedule: {len(words)} fields where five belong "
                "(minute, hour, day of month, month, day of week)"
            )
        sets = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
        either = not words[2].startswith("*") and not words[4].startswith("*")
        weekdays = frozenset(day % 7 for day in sets[4])
        found = cls(text, sets[0], sets[1], sets[2], sets[3], weekdays, either)
        # From 1970 on: nine years hold every day of every month and weekday.
        if found.next_after(0) is None:
            raise ValueError(f"{text!r} never comes: no such day in any of these months")
        return found

    def next_after(self, now: int) -> int | None:
        """The first minute after `now` (not the one that begins at it), None if none comes."""
        start = datetime.datetime.fromtimestamp(now // _MINUTE * 60, datetime.UTC) + datetime.timedelta(minutes=1)
        day = start.date()
        last = datetime.date(day.year + _YEARS + 1, 1, 1)
        while day < last:
            if day.month not in self.months:
                day = (day.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
                continue
            if self._is_due_on(day):
                earliest = (start.hour, start.minute) if day == start.date() else (0, 0)
                found = self._first_at_or_after(earliest)
                if found is not None:
                    at = datetime.datetime(day.year, day.month, day.day, *found, tzinfo=datetime.UTC)
                    return int(at.timestamp()) * SECOND
            day += datetime.timedelta(days=1)
        return None

    def last_before(self, start: int, now: int) -> int | None:
        """The last minute that is due after `start` and not after `now`; None when there is none."""
        due = self.next_after(start)
        if due is None or due > now:
            return None
        # Look back in steps that double until something is due within, then walk forward.
        step = _MINUTE
        while True:
            begin = max(now - step, start)
            first = self.next_after(begin)
            if first is not None and first <= now:
                break
            if begin == start:
                return due
            step *= 2
        while True:
            following = self.next_after(first)
            if following is None or following > now:
                return first
            first = following

    def _is_due_on(self, day: datetime.date) -> bool:
        in_month = day.day in self.days
        in_week = (day.weekday() + 1) % 7 in self.weekdays
        return (in_month or in_week) if self.either_day else (in_month and in_week)

    def _first_at_or_after(self, earliest: tuple[int, int]) -> tuple[int, int] | None:
        for hour in sorted(self.hours):
            if hour < earliest[0]:
                continue
            for minute in sorted(self.minutes):
                if (hour, minute) >= earliest:
                    return hour, minute
        return None


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        base, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not step_text.isdecimal() or int(step_text) == 0:
                raise ValueError(f"{part!r} in the {name}: the step must be a number above 0")
            step = int(step_text)
        if base == "*":
            first, last = low, high
        elif "-" in base:
            left, _, right = base.partition("-")
            first, last = (_number(word, part, name, low, high, names) for word in (left, right))
            if first > last:
                raise ValueError(f"{part!r} in the {name}: the range ends before it begins")
        else:
            first = _number(base, part, name, low, high, names)
            last = high if slash else first
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(word: str, part: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
    named = names.get(word.lower())
    if named is not None:
        return named
    if not (word.isascii() and word.isdecimal()) or not low <= int(word) <= high:
        raise ValueError(f"{part!r} in the {name} is not within {low}-{high}")
    return int(word)
