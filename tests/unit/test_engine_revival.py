"""An engine that died is found up again by the next call, unless nothing helps."""

from collections.abc import Sequence

import pytest

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineLost, ModelRefused
from workers.engines.fake import FakeEngine
from workers.engines.revival import RevivedEngine
from workers.ports import Entailment, Pair

PAIRS = [Pair("text", "label")]


class Mortal(FakeEngine):
    """Dies at the calls whose errors are given, in order; ``None`` answers."""

    def __init__(self, *ends: Exception | None, restarts: Exception | None = None) -> None:
        super().__init__()
        self._ends = list(ends)
        self._refusal = restarts
        self.is_alive = True
        self.restarts = 0

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        assert self.is_alive, "nobody asks a dead engine"
        end = self._ends.pop(0) if self._ends else None
        if isinstance(end, EngineDied):
            self.is_alive = False
        if end is not None:
            raise end
        return super().entail(pairs)

    def restart(self) -> None:
        self.restarts += 1
        if self._refusal is not None:
            raise self._refusal
        self.is_alive = True


def died() -> EngineDied:
    return EngineDied("killed by SIGKILL")


def test_the_call_that_meets_the_death_fails_and_the_next_is_answered() -> None:
    mortal = Mortal(died())
    engine = RevivedEngine(mortal)
    with pytest.raises(EngineDied):
        engine.entail(PAIRS)
    assert engine.entail(PAIRS) == FakeEngine().entail(PAIRS)
    assert mortal.restarts == 1


def test_a_pass_that_does_not_fit_is_no_death() -> None:
    mortal = Mortal(DeviceOutOfMemory("too large"))
    engine = RevivedEngine(mortal)
    with pytest.raises(DeviceOutOfMemory):
        engine.entail(PAIRS)
    assert engine.entail(PAIRS)
    assert mortal.restarts == 0


def test_after_too_many_deaths_in_a_row_it_is_lost() -> None:
    mortal = Mortal(*[died() for _ in range(9)])
    engine = RevivedEngine(mortal, max_deaths=3)
    for _ in range(3):
        with pytest.raises(EngineDied):
            engine.entail(PAIRS)
    with pytest.raises(EngineLost, match="died 3 times without an answer in between"):
        engine.entail(PAIRS)
    assert mortal.restarts == 2


def test_an_answer_in_between_begins_the_count_again() -> None:
    engine = RevivedEngine(Mortal(died(), died(), None, died(), died(), None), max_deaths=3)
    answered = 0
    for _ in range(6):
        try:
            engine.entail(PAIRS)
            answered += 1
        except EngineDied:
            pass
    assert answered == 2


def test_a_restart_that_fails_counts_as_a_death() -> None:
    engine = RevivedEngine(Mortal(died(), restarts=ModelRefused("the checkpoint is gone")), max_deaths=2)
    with pytest.raises(EngineDied):
        engine.entail(PAIRS)
    with pytest.raises(EngineDied, match="could not be started again: the checkpoint is gone"):
        engine.entail(PAIRS)
    with pytest.raises(EngineLost):
        engine.entail(PAIRS)


def test_a_closed_engine_is_not_started_again() -> None:
    mortal = Mortal()
    engine = RevivedEngine(mortal)
    engine.close()
    mortal.is_alive = False
    with pytest.raises(AssertionError, match="nobody asks"):
        engine.entail(PAIRS)
    assert mortal.restarts == 0
