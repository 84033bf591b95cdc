"""A fake engine is ordered by its model's name, and fails as its texts say."""

import math

import pytest

from tagging.errors import DeviceOutOfMemory, EngineError, ModelRefused
from workers.engines.fake import FakeEngine, fake_engine
from workers.ports import Pair


def asked(*texts: str) -> list[Pair]:
    return [Pair(text, "label") for text in texts]


@pytest.mark.parametrize("name", ["fake", "fake:pass_s=0", "fake:failing=1", "fake:pass_s=0.0,failing=1"])
def test_an_order_without_orders_in_the_text_is_the_plain_fake(name: str) -> None:
    engine = fake_engine(name)
    assert engine.entail(asked("a", "b")) == FakeEngine().entail(asked("a", "b"))
    assert engine.info.name == "fake"


@pytest.mark.parametrize("name", ["fake:speed=2", "fake:pass_s=soon", "fake:pass_s"])
def test_another_order_is_refused(name: str) -> None:
    with pytest.raises(ModelRefused, match="expected fake, fake:pass_s=SECONDS"):
        fake_engine(name)


@pytest.mark.parametrize(("order", "error"), [("!fail", EngineError), ("!oom", DeviceOutOfMemory)])
def test_a_failure_fails_the_whole_pass(order: str, error: type[Exception]) -> None:
    engine = fake_engine("fake:failing=1")
    for _ in range(3):
        with pytest.raises(error):
            engine.entail(asked("a", order))


def test_a_failure_may_be_ordered_for_some_times() -> None:
    engine = fake_engine("fake:failing=1")
    for _ in range(2):
        with pytest.raises(EngineError):
            engine.entail(asked("!fail 2 times"))
    assert engine.entail(asked("!fail 2 times"))


def test_nan_is_for_one_text() -> None:
    sick, well = fake_engine("fake:failing=1").entail(asked("!nan", "a")).logits
    assert math.isnan(sick.entailment)
    assert math.isfinite(well.entailment)


def test_without_failing_a_text_orders_nothing() -> None:
    assert fake_engine("fake").entail(asked("!fail"))
