"""A supervisor restarts what crashed, ends what cannot go well, and lets its children finish before it ends."""

import signal
from collections.abc import Iterable

import pytest

from workers.exits import Exit
from workers.supervision.decisions import Action, End, Limits, Send, Start, Supervisor, Tell, in_words

LIMITS = Limits(drain_s=45, max_crashes=3, crash_window_s=100, backoff_s=1, backoff_max_s=8, hand_back_s=20, kill_s=10)
KILLED = -signal.SIGKILL


def supervisor_of(*children: str, limits: Limits = LIMITS, jitter: float = 1.0) -> Supervisor:
    """A supervisor whose children run; a jitter of 1 waits for the whole back-off."""
    supervisor = Supervisor(children, limits, jitter=lambda: jitter)
    assert supervisor.begin() == [Start(child) for child in children]
    return supervisor


def done(actions: Iterable[Action]) -> list[Action]:
    """The actions without what is logged."""
    return [action for action in actions if not isinstance(action, Tell)]


def told(actions: Iterable[Action]) -> list[str]:
    """The events that are logged."""
    return [action.event for action in actions if isinstance(action, Tell)]


def sent(number: signal.Signals, *children: str) -> list[Send]:
    return [Send(child, number) for child in children]


# Crashes


def test_a_crashed_child_is_started_again_after_its_back_off_and_no_sooner():
    supervisor = supervisor_of("a", "b")
    assert told(supervisor.ended("a", KILLED, now=10)) == ["child.crashed"]
    assert supervisor.due_at == 11
    assert supervisor.passed(now=10.9) == []
    assert supervisor.passed(now=11) == [Start("a")]
    assert supervisor.due_at is None


def test_the_back_off_doubles_up_to_its_limit():
    supervisor = supervisor_of("a", limits=Limits(drain_s=45, max_crashes=99, backoff_s=1, backoff_max_s=8))
    waits = []
    for now in range(6):
        supervisor.ended("a", KILLED, now=now)
        assert supervisor.due_at is not None
        waits.append(supervisor.due_at - now)
        supervisor.passed(now=supervisor.due_at)
    assert waits == [1, 2, 4, 8, 8, 8]


def test_jitter_takes_off_up_to_half_of_it():
    supervisor = supervisor_of("a", jitter=0.0)
    supervisor.ended("a", KILLED, now=0)
    assert supervisor.due_at == 0.5


def test_too_many_crashes_within_the_window_end_all_and_the_others_finish_first():
    supervisor = supervisor_of("a", "b")
    for now in (0, 30):
        supervisor.ended("a", 70, now=now)
        supervisor.passed(now=now + 8)
    last = supervisor.ended("a", 70, now=60)
    assert told(last) == ["supervisor.gives_up", "supervisor.stopping"]
    assert done(last) == sent(signal.SIGTERM, "b")
    assert done(supervisor.ended("b", 0, now=61)) == [End(Exit.FAILED)]


def test_crashes_that_are_long_past_are_forgotten():
    supervisor = supervisor_of("a")
    for now in (0, 60, 120, 180):
        assert told(supervisor.ended("a", 70, now=now)) == ["child.crashed"]
        supervisor.passed(now=now + 8)


def test_each_child_has_its_own_count():
    supervisor = supervisor_of("a", "b")
    for child in ("a", "b", "a", "b"):
        assert told(supervisor.ended(child, 70, now=0)) == ["child.crashed"]
        supervisor.passed(now=8)


@pytest.mark.parametrize("code", [Exit.FAILED, Exit.STUCK, Exit.UNREACHABLE, KILLED, -signal.SIGSEGV])
def test_whatever_is_no_refusal_is_a_crash(code):
    supervisor = supervisor_of("a")
    assert told(supervisor.ended("a", code, now=0)) == ["child.crashed"]
    assert supervisor.due_at == 1


# Ends that are no crashes


@pytest.mark.parametrize("code", [Exit.REFUSED, Exit.WRONG_USAGE])
def test_a_refusal_is_not_tried_again_and_its_code_is_ours(code):
    supervisor = supervisor_of("a", "b")
    actions = supervisor.ended("a", code, now=0)
    assert told(actions)[0] == "child.refused"
    assert done(actions) == sent(signal.SIGTERM, "b")
    assert done(supervisor.ended("b", 0, now=1)) == [End(code)]


def test_one_that_passed_its_memory_ceiling_is_started_at_once_as_often_as_it_likes():
    supervisor = supervisor_of("a")
    for now in range(10):
        assert done(supervisor.ended("a", Exit.FULL, now=now)) == [Start("a")]


def test_one_that_was_told_to_stop_from_afar_stays_away():
    supervisor = supervisor_of("a", "b")
    assert done(supervisor.ended("a", Exit.DONE, now=0)) == []
    assert done(supervisor.ended("b", Exit.DONE, now=1)) == [End(Exit.DONE)]


def test_one_that_waits_for_its_restart_is_waited_for():
    supervisor = supervisor_of("a", "b")
    supervisor.ended("a", KILLED, now=0)
    assert done(supervisor.ended("b", Exit.DONE, now=0.1)) == []
    assert supervisor.passed(now=1) == [Start("a")]


# Being told to stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_let_the_children_finish(number):
    supervisor = supervisor_of("a", "b")
    assert done(supervisor.asked(number, now=0)) == sent(signal.SIGTERM, "a", "b")
    assert done(supervisor.ended("a", 0, now=1)) == []
    assert done(supervisor.ended("b", 0, now=2)) == [End(Exit.DONE)]


def test_sigquit_lets_them_hand_back_and_says_that_not_all_is_done():
    supervisor = supervisor_of("a")
    assert done(supervisor.asked(signal.SIGQUIT, now=0)) == sent(signal.SIGQUIT, "a")
    assert done(supervisor.ended("a", Exit.FAILED, now=1)) == [End(Exit.FAILED)]


def test_each_further_signal_hurries():
    supervisor = supervisor_of("a")
    signals = [done(supervisor.asked(signal.SIGTERM, now=now)) for now in range(4)]
    assert signals == [sent(number, "a") for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, signal.SIGKILL)]


def test_a_child_that_does_not_finish_in_time_is_killed_and_the_exit_code_says_so():
    supervisor = supervisor_of("a", "b")
    supervisor.asked(signal.SIGTERM, now=0)
    supervisor.ended("b", 0, now=1)
    assert supervisor.due_at == 45
    assert supervisor.passed(now=44) == []
    assert done(supervisor.passed(now=45)) == sent(signal.SIGKILL, "a")
    assert done(supervisor.ended("a", KILLED, now=46)) == [End(Exit.FAILED)]


def test_a_child_that_not_even_sigkill_ends_is_left_behind():
    supervisor = supervisor_of("a")
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        supervisor.asked(number, now=0)
    assert done(supervisor.passed(now=10)) == [End(Exit.FAILED)]


def test_a_child_that_waits_for_its_restart_is_not_started_any_more():
    supervisor = supervisor_of("a", "b")
    supervisor.ended("a", KILLED, now=0)
    assert done(supervisor.asked(signal.SIGTERM, now=0.5)) == sent(signal.SIGTERM, "b")
    assert done(supervisor.passed(now=2)) == []
    assert done(supervisor.ended("b", 0, now=3)) == [End(Exit.DONE)]


def test_nobody_left_to_wait_for_ends_at_once():
    supervisor = supervisor_of("a")
    supervisor.ended("a", KILLED, now=0)
    assert done(supervisor.asked(signal.SIGTERM, now=0.5)) == [End(Exit.DONE)]


def test_one_that_breaks_down_while_it_finishes_shows_in_the_exit_code():
    supervisor = supervisor_of("a", "b")
    supervisor.asked(signal.SIGTERM, now=0)
    supervisor.ended("a", -signal.SIGSEGV, now=1)
    assert done(supervisor.ended("b", 0, now=2)) == [End(Exit.FAILED)]


@pytest.mark.parametrize("code", [-signal.SIGTERM, Exit.FULL])
def test_one_that_was_loading_or_full_when_it_was_asked_has_ended_well(code):
    supervisor = supervisor_of("a")
    supervisor.asked(signal.SIGTERM, now=0)
    assert done(supervisor.ended("a", code, now=1)) == [End(Exit.DONE)]


def test_a_signal_after_a_refusal_keeps_the_refusals_code():
    supervisor = supervisor_of("a", "b")
    supervisor.ended("a", Exit.REFUSED, now=0)
    assert done(supervisor.asked(signal.SIGTERM, now=1)) == sent(signal.SIGQUIT, "b")
    assert done(supervisor.ended("b", Exit.FAILED, now=2)) == [End(Exit.REFUSED)]


def test_ends_are_told_in_words():
    assert [in_words(code) for code in (-9, -35, 70)] == ["SIGKILL", "signal 35", "exit code 70"]
