"""A backfill sends while live traffic is well, its window has room, its rate allows it and its hours are open."""

from dataclasses import replace
from datetime import datetime

import pytest

from producers.backfill.pace import Hours, Limits, Load, Send, Wait, decide
from tagging.errors import SettingsError

LIMITS = Limits(in_flight=8, live_waiting_high=100, live_waiting_low=10, live_age_s=5.0)
QUIET = Load(in_flight=0, live_waiting=0, live_age_s=0.0, sent=0, elapsed_s=0.0, now=datetime(2026, 1, 1, 12, 0))


def decision(*, held: bool = False, limits: Limits = LIMITS, **seen):
    return decide(replace(QUIET, **seen), limits, held=held)


def reason(**seen) -> str:
    waits = decision(**seen)
    assert isinstance(waits, Wait)
    return waits.reason


def test_fills_its_window():
    assert decision(in_flight=3) == Send(messages=5)


def test_waits_for_answers_once_its_window_is_full():
    assert reason(in_flight=8) == "its window is full"


def test_is_held_above_the_high_watermark_of_live_messages():
    assert decision(live_waiting=100) == Send(messages=8)
    assert reason(live_waiting=101) == "live traffic is behind"


def test_once_held_it_waits_for_the_low_watermark():
    assert reason(live_waiting=11, held=True) == "live traffic is behind"
    assert decision(live_waiting=10, held=True) == Send(messages=8)


def test_is_held_by_one_live_message_that_takes_too_long():
    assert reason(live_age_s=5.1) == "live traffic is behind"


def test_waits_until_its_rate_has_caught_up():
    # 300 texts at 100 a second take 3 s, of which 1 is over.
    waits = decision(limits=replace(LIMITS, max_rate=100.0), sent=300, elapsed_s=1.0)
    assert waits == Wait(seconds=2.0, reason="ahead of its rate")


def test_with_a_rate_it_sends_one_message_at_a_time():
    assert decision(limits=replace(LIMITS, max_rate=100.0), sent=100, elapsed_s=1.0) == Send(messages=1)


@pytest.mark.parametrize(
    ("hours", "hour", "is_open"),
    [
        ("22:00-06:00", 21, False), ("22:00-06:00", 22, True), ("22:00-06:00", 0, True), ("22:00-06:00", 6, False),
        ("09:00-17:00", 8, False), ("09:00-17:00", 9, True), ("09:00-17:00", 17, False),
    ],
)  # fmt: skip
def test_sends_in_its_hours_only(hours, hour, is_open):
    limits = replace(LIMITS, hours=Hours.parse(hours))
    assert isinstance(decision(limits=limits, now=QUIET.now.replace(hour=hour)), Send) == is_open


@pytest.mark.parametrize("text", ["22-06", "25:00-06:00", "22:00", "", "a:00-b:00"])
def test_hours_of_another_form_are_refused_with_an_example(text):
    with pytest.raises(SettingsError, match="such as 22:00-06:00"):
        Hours.parse(text)
