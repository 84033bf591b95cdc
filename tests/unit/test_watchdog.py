"""A loop has stood still when look after look finds no beat; a process that was paused has not."""

import pytest

from tagging.errors import SettingsError
from tagging.settings import load
from tests.commands import ROOT
from workers.watchdog import Silence


def looks_until_too_long(silence: Silence, beats: int = 0) -> int:
    """How many looks it takes, none of which finds a beat."""
    return next(look for look in range(1, 10_000) if silence.is_too_long_at(beats))


@pytest.mark.parametrize("limit_s", [1.0, 60.0, 600.0])
def test_the_limit_is_reached_after_as_many_looks_as_fill_it(limit_s):
    silence = Silence(limit_s=limit_s)
    silence.is_too_long_at(0)
    assert looks_until_too_long(silence) * silence.look_s == pytest.approx(limit_s)


def test_one_beat_starts_the_count_anew():
    silence = Silence(limit_s=60)
    silence.is_too_long_at(0)
    for _ in range(59):
        assert not silence.is_too_long_at(0)
    assert not silence.is_too_long_at(1)
    assert silence.lasts_s == 0
    assert looks_until_too_long(silence, beats=1) == 60


def test_a_loop_that_never_beat_is_found_too():
    assert looks_until_too_long(Silence(limit_s=10)) > 0


def test_a_pause_of_the_process_costs_one_look_however_long_it_was():
    # Nothing here reads a clock: a look is a look. What was paused did not look.
    silence = Silence(limit_s=60)
    silence.is_too_long_at(7)
    assert not silence.is_too_long_at(7)
    assert silence.lasts_s == silence.look_s


def test_a_limit_below_what_the_loop_may_wait_is_refused():
    with pytest.raises(SettingsError, match=r"worker\.loop_timeout_s is 5, .*\n.* Set 40 or more, or 0"):
        load(environ={"TAGMILL_WORKER__LOOP_TIMEOUT_S": "5"}, config_dir=ROOT / "config")


def test_0_turns_it_off():
    assert load(environ={"TAGMILL_WORKER__LOOP_TIMEOUT_S": "0"}, config_dir=ROOT / "config").settings.worker
