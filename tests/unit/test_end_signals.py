"""Signals that end a worker leave a note and do nothing else, whatever they interrupt."""

import signal
from collections.abc import Iterator

import pytest
from celery.exceptions import WorkerTerminate
from celery.worker import state

from workers.lifecycle import end_outside_signal_handlers


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(state, "should_terminate", None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    end_outside_signal_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigquit_ends_at_once() -> None:
    signal.raise_signal(signal.SIGQUIT)
    assert (state.should_stop, state.should_terminate) == (None, 1)


def test_ctrl_c_finishes_what_was_fetched_and_a_second_one_ends_at_once() -> None:
    signal.raise_signal(signal.SIGINT)
    assert (state.should_stop, state.should_terminate) == (1, None)
    signal.raise_signal(signal.SIGINT)
    assert state.should_terminate == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_asking_once_more_waits_for_nothing(number: signal.Signals) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGQUIT)
    with pytest.raises(WorkerTerminate):
        signal.raise_signal(number)
