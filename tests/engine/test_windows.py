"""A text longer than the model's window is truncated, or read in windows that its answer is aggregated from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.long_text import LongText
from tests.engine.checkpoints import IDEOGRAPHS
from workers.engines.build import build_engine
from workers.engines.nli import NliEngine
from workers.engines.tokenizing import PairEncoder
from workers.engines.windows import aggregate, starts
from workers.ports import Pair, Reading

WINDOW = 48  # tokens that the checkpoint called "short" reads
RULES = (LongText("truncate"), LongText("max", 8), LongText("mean", 8))
FITS = IDEOGRAPHS[: WINDOW - 4]
LONG = IDEOGRAPHS[:100]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def engine(open_engine: Callable[..., NliEngine]) -> NliEngine:
    return open_engine("short")


@pytest.fixture(scope="module")
def encoder(checkpoint_dir: Callable[[str], Path]) -> PairEncoder:
    return PairEncoder(checkpoint_dir("short"), max_length=WINDOW)


def logits(engine: NliEngine, *pairs: Pair) -> np.ndarray:
    return np.array(engine.entail(pairs).logits)


def parts(text: str, *, label: str, overlap: int) -> list[str]:
    """The text as its windows hold it, one token a character."""
    room = WINDOW - 3 - len(label)
    return [text[start : start + room] for start in starts(len(text), room=room, overlap=overlap)]


# Where windows begin


@given(tokens=st.integers(0, 5000), room=st.integers(1, 509), overlap=st.integers(0, 600))
def test_windows_cover_every_token_and_share_at_least_the_overlap(tokens: int, room: int, overlap: int) -> None:
    begins = starts(tokens, room=room, overlap=overlap)
    assert begins[0] == 0
    assert begins[-1] + room >= tokens
    shared = [one + room - two for one, two in pairwise(begins)]
    assert all(min(overlap, room // 2) <= tokens_shared for tokens_shared in shared) or room == 1


@given(tokens=st.integers(0, 5000), room=st.integers(1, 509), overlap=st.integers(0, 600))
def test_no_window_is_in_vain(tokens: int, room: int, overlap: int) -> None:
    begins = starts(tokens, room=room, overlap=overlap)
    assert begins == sorted(set(begins))
    assert all(begin + room < tokens for begin in begins[:-1])


def test_a_window_follows_another_by_what_they_do_not_share() -> None:
    assert starts(1000, room=400, overlap=100) == [0, 300, 600]
    assert starts(1001, room=400, overlap=100) == [0, 300, 600, 601]
    assert starts(400, room=400, overlap=100) == [0]


def test_a_pair_of_a_window_is_as_long_as_the_model_reads(encoder: PairEncoder) -> None:
    text, hypothesis = encoder.texts([LONG])[LONG], encoder.hypotheses(["物流"])["物流"]
    windows = encoder.windows(text, hypothesis, overlap=8)
    assert {window.tokens for window in windows} == {WINDOW}
    assert {window.hypothesis.tobytes() for window in windows} == {hypothesis.tobytes()}


def test_a_hypothesis_leaves_the_text_half_the_window(encoder: PairEncoder) -> None:
    label = "物" * 100
    windows = encoder.windows(encoder.texts([LONG])[LONG], encoder.hypotheses([label])[label], overlap=8)
    assert {len(window.text) for window in windows} == {WINDOW - (WINDOW - 3) // 2 - 1}
    assert {window.tokens for window in windows} == {WINDOW}


# What becomes of their logits


@pytest.mark.parametrize("long_text", RULES, ids=lambda long_text: long_text.rule)
def test_a_text_that_fits_has_the_same_answer_under_every_rule(engine: NliEngine, long_text: LongText) -> None:
    plain = engine.entail([Pair(FITS, "物")])
    ruled = engine.entail([Pair(FITS, "物", long_text)])
    assert ruled.logits == plain.logits
    assert ruled.readings == [Reading(windows=1, truncated=False)]


def test_truncation_reads_the_beginning_and_says_so(engine: NliEngine) -> None:
    answer = engine.entail([Pair(LONG, "物流")])
    assert answer.readings == [Reading(windows=1, truncated=True)]
    assert answer.tokens == [WINDOW]
    assert np.abs(np.array(answer.logits) - logits(engine, Pair(LONG[: WINDOW - 5], "物流"))).max() < TOLERANCE


def test_the_mean_is_that_of_both_logits_over_all_windows(engine: NliEngine) -> None:
    answer = engine.entail([Pair(LONG, "物流", LongText("mean", 8))])
    windows = parts(LONG, label="物流", overlap=8)
    expected = logits(engine, *(Pair(part, "物流") for part in windows)).mean(axis=0)
    assert np.abs(np.array(answer.logits[0]) - expected).max() < TOLERANCE
    assert answer.readings == [Reading(windows=len(windows), truncated=False)]
    assert answer.tokens == [WINDOW * len(windows)]


def test_the_max_is_both_logits_of_the_window_with_the_largest_margin(engine: NliEngine) -> None:
    answer = engine.entail([Pair(LONG, "物流", LongText("max", 8))])
    table = logits(engine, *(Pair(part, "物流") for part in parts(LONG, label="物流", overlap=8)))
    assert len({round(float(margin), 4) for margin in table[:, 0] - table[:, 1]}) == len(table) > 1
    best = table[(table[:, 0] - table[:, 1]).argmax()]
    assert np.abs(np.array(answer.logits[0]) - best).max() < TOLERANCE


def test_rules_and_lengths_mix_in_one_call(engine: NliEngine) -> None:
    pairs = [Pair(text, label, rule) for rule in RULES for text in (FITS[1:], LONG, "退") for label in ("物", "退款")]
    alone = np.array([engine.entail([pair]).logits[0] for pair in pairs])
    together = engine.entail(pairs)
    assert np.abs(np.array(together.logits) - alone).max() < TOLERANCE
    assert [reading.windows for reading in together.readings] == [1] * 6 + [1, 1, 3, 3, 1, 1] * 2


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_a_window_that_is_not_finite_is_not_passed_over(rule: str) -> None:
    assert aggregate([[3.0, 1.0], [-math.inf, 1.0]], rule) == [-math.inf, 1.0]
    assert math.isnan(aggregate([[3.0, 1.0], [math.nan, 1.0]], rule)[0])


def test_readings_cross_the_process_boundary(checkpoint_dir: Callable[[str], Path], tmp_path: Path) -> None:
    engine = build_engine(str(checkpoint_dir("short")), check=False, cache_dir=tmp_path, threads=1)
    try:
        answer = engine.entail([Pair(LONG, "物流", LongText("max", 8)), Pair(LONG, "物流")])
    finally:
        engine.close()
    assert answer.readings == [Reading(3, truncated=False), Reading(1, truncated=True)]
