"""Cron expressions: what is due when (crontab(5)), checked against a walk through every minute."""

from __future__ import annotations

import datetime
import random

import pytest

from swarm_agent.model.cron import Schedule
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339

MINUTE = 60 * SECOND
DAY = 1440  # minutes


def after(text: str, now: str) -> str:
    found = Schedule.parse(text).next_after(parse_rfc3339(now))
    assert found is not None
    return rfc3339(found)[:16]


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01"),
        ("* * * * *", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T10:46:00Z", "2026-01-01T11:00"),
        ("5/20 * * * *", "2026-01-01T10:26:00Z", "2026-01-01T10:45"),
        ("30 2 * * *", "2026-01-01T02:30:00Z", "2026-01-02T02:30"),
        ("0 0 * * mon-FRI", "2026-01-02T00:00:00Z", "2026-01-05T00:00"),
        ("0 0 * * 7", "2026-01-02T00:00:00Z", "2026-01-04T00:00"),
        ("0 0 * * 5-7", "2026-01-03T00:00:00Z", "2026-01-04T00:00"),
        ("0 0 13 * 5", "2026-01-10T00:00:00Z", "2026-01-13T00:00"),  # a 13th or a Friday
        ("0 0 13 * 5", "2026-01-13T00:00:00Z", "2026-01-16T00:00"),
        ("0 0 */2 * 5", "2026-01-02T00:00:00Z", "2026-01-09T00:00"),  # an odd day that is a Friday
        ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00"),
        ("0 0 29 feb *", "2096-03-01T00:00:00Z", "2104-02-29T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59"),
        ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00"),
        ("@Weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00"),
    ],
)
def test_the_next_time(text: str, now: str, expected: str) -> None:
    assert after(text, now) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 1 1 * *", "6 fields"),
        ("60 * * * *", "'60' in the minute"),
        ("* 24 * * *", "'24' in the hour"),
        ("* * 0 * *", "'0' in the day of month"),
        ("* * * 13 *", "'13' in the month"),
        ("* * * * 8", "'8' in the day of week"),
        ("-1 * * * *", "in the minute"),
        ("1,,2 * * * *", "in the minute"),
        ("*/0 * * * *", "step"),
        ("*/x * * * *", "step"),
        ("9-3 * * * *", "ends before it begins"),
        ("* * * * funday", "'funday' in the day of week"),
        ("* * 30 2 *", "never comes"),
        ("* * 31 4,6,9,11 *", "never comes"),
        ("@reboot", "1 fields"),
        ("² * * * *", "in the minute"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Schedule.parse(text)


def random_expression(rng: random.Random) -> str:
    def field(low: int, high: int) -> str:
        kind = rng.randrange(4)
        if kind == 0:
            return "*"
        if kind == 1:
            return f"*/{rng.randint(1, high)}"
        first = rng.randint(low, high)
        return (
            f"{first}-{rng.randint(first, high)}" if kind == 2 else ",".join({str(first), str(rng.randint(low, high))})
        )

    return " ".join((field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)))


def is_due(text: str, at: datetime.datetime) -> bool:
    """The definition, read minute by minute."""

    def holds(word: str, value: int, low: int, high: int) -> bool:
        for part in word.split(","):
            base, _, step = part.partition("/")
            first, last = (low, high) if base == "*" else (int(base.split("-")[0]), int(base.split("-")[-1]))
            if value in range(first, last + 1, int(step or 1)):
                return True
        return False

    minute, hour, day, month, weekday = text.split()
    number = at.isoweekday() % 7
    in_week = holds(weekday, number, 0, 7) or (number == 0 and holds(weekday, 7, 0, 7))
    in_month = holds(day, at.day, 1, 31)
    either = not day.startswith("*") and not weekday.startswith("*")
    if not (holds(minute, at.minute, 0, 59) and holds(hour, at.hour, 0, 23) and holds(month, at.month, 1, 12)):
        return False
    return (in_week or in_month) if either else (in_week and in_month)


@pytest.mark.parametrize("seed", range(25))
def test_it_agrees_with_a_walk_through_the_minutes(seed: int) -> None:
    rng = random.Random(seed)
    text = random_expression(rng)
    schedule = Schedule.parse(text)
    start = datetime.datetime(2027, rng.randint(1, 12), rng.randint(1, 28), rng.randrange(24), tzinfo=datetime.UTC)
    begin = int(start.timestamp()) * SECOND
    due = [begin + n * MINUTE for n in range(1, DAY) if is_due(text, start + datetime.timedelta(minutes=n))]
    found, at = [], begin
    while (following := schedule.next_after(at)) is not None and following < begin + DAY * MINUTE:
        found.append(following)
        at = following
    assert found == due
    for now in (begin + rng.randrange(DAY) * MINUTE for _ in range(10)):
        expected = max((at for at in due if at <= now), default=None)
        assert schedule.last_before(begin, now) == expected
