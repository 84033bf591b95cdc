"""A model that gets an obvious pair wrong does not serve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tagging.errors import ModelRefused
from workers.engines.fake import FakeEngine
from workers.engines.self_test import self_test, warm_up
from workers.ports import Entailment, Logit, Pair, Reading

ENTAILED, CONTRADICTED = Pair("快递没有送到", "物流"), Pair("快递没有送到", "登录")


class Scripted(FakeEngine):
    """Answers with the logits it was given."""

    def __init__(self, yes: Logit, no: Logit) -> None:
        super().__init__(name="scripted")
        self._script = {ENTAILED: yes, CONTRADICTED: no}
        self.asked: list[Pair] = []

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        self.asked += pairs
        logits = [self._script.get(pair, Logit(0.0, 0.0)) for pair in pairs]
        return Entailment(
            logits=logits,
            tokens=[1] * len(pairs),
            padded_tokens=len(pairs),
            device_ms=0.0,
            readings=[Reading(windows=1, truncated=False)] * len(pairs),
        )


def check(yes: Logit, no: Logit) -> None:
    self_test(Scripted(yes, no), entailed=ENTAILED, contradicted=CONTRADICTED)


def test_a_model_that_tells_them_apart_passes() -> None:
    check(Logit(2.0, -1.0), Logit(-1.0, 0.5))


def test_swapped_columns_are_named_as_the_likely_cause() -> None:
    with pytest.raises(
        ModelRefused, match=r"(?s)'物流' should be entailed.*'登录' should be contradicted.*swapped columns"
    ):
        check(Logit(-1.0, 2.0), Logit(0.5, -1.0))


def test_only_the_pair_that_failed_is_named() -> None:
    with pytest.raises(ModelRefused) as refused:
        check(Logit(2.0, -1.0), Logit(0.5, -1.0))
    assert "物流" not in str(refused.value)
    assert "entailment is 0.500 and contradiction -1.000" in str(refused.value)


@pytest.mark.parametrize("yes", [Logit(math.nan, 0.0), Logit(0.0, 0.0), Logit(math.nan, math.nan)])
def test_neither_nan_nor_a_tie_passes(yes: Logit) -> None:
    with pytest.raises(ModelRefused):
        check(yes, Logit(-1.0, 1.0))


def test_warming_up_ends_with_one_full_pass_of_distinct_pairs() -> None:
    engine = Scripted(Logit(0, 0), Logit(0, 0))
    warm_up(engine, max_tokens=2048)
    full = [pair for pair in engine.asked if len(pair.text) >= engine.info.max_length]
    assert len(set(full)) >= 2048 // 512
