"""Logits become scores, scores decisions, and decisions tags."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.labels import Policy
from workers.ports import Logit
from workers.scoring import decide, is_finite, score, strongest

logits = st.builds(Logit, st.floats(-100, 100), st.floats(-100, 100))


def test_one_label_of_several_is_a_softmax_over_entailment() -> None:
    assert score([Logit(0.0, 9.0), Logit(math.log(3), -9.0)], multi_label=False) == pytest.approx([0.25, 0.75])


def test_labels_by_themselves_are_entailment_against_contradiction() -> None:
    assert score([Logit(0.0, 0.0), Logit(math.log(3), 0.0)], multi_label=True) == pytest.approx([0.5, 0.75])


def test_a_single_label_is_scored_by_itself() -> None:
    assert score([Logit(0.0, 0.0)], multi_label=False) == [0.5]


@given(st.lists(logits, min_size=2, max_size=10))
def test_scores_of_one_label_of_several_add_up_to_one(some: list[Logit]) -> None:
    assert math.fsum(score(some, multi_label=False)) == pytest.approx(1.0)


@given(st.lists(logits, min_size=1, max_size=10), st.booleans())
def test_scores_lie_between_zero_and_one(some: list[Logit], multi_label: bool) -> None:
    assert all(0.0 <= value <= 1.0 for value in score(some, multi_label=multi_label))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_told(value: float) -> None:
    assert is_finite([Logit(1.0, 2.0)])
    assert not is_finite([Logit(1.0, 2.0), Logit(1.0, value)])


def test_at_most_one_tag_unless_multi_label() -> None:
    labels, scores = ("a", "b", "c"), (0.6, 0.9, 0.1)
    assert [t["label"] for t in decide(labels, scores, multi_label=False, policy=Policy())] == ["b"]
    assert [t["label"] for t in decide(labels, scores, multi_label=True, policy=Policy())] == ["b", "a"]


@pytest.mark.parametrize(("value", "decision"), [(0.5, "apply"), (0.49, "suggest"), (0.3, "suggest"), (0.29, None)])
def test_thresholds_are_inclusive(value: float, decision: str | None) -> None:
    tags = decide(["a"], [value], multi_label=False, policy=Policy(apply_at=0.5, suggest_at=0.3))
    assert [tag["decision"] for tag in tags] == ([decision] if decision else [])


def test_a_label_may_have_a_threshold_of_its_own() -> None:
    policy = Policy(apply_at=0.5, suggest_at=0.3, per_label={"rare": 0.9, "common": 0.2})
    tags = decide(["rare", "common"], [0.8, 0.25], multi_label=True, policy=policy)
    assert [(t["label"], t["decision"]) for t in tags] == [("rare", "suggest"), ("common", "apply")]


def test_the_text_is_decided_by_its_strongest_tag() -> None:
    assert strongest([]) == "abstain"
    assert strongest([{"label": "a", "score": 0.4, "decision": "suggest"}]) == "suggest"
    assert (
        strongest(
            [{"label": "a", "score": 0.4, "decision": "suggest"}, {"label": "b", "score": 0.9, "decision": "apply"}]
        )
        == "apply"
    )
