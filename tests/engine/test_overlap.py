"""Texts are tokenised while others are on the device, and every pair still meets the network once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tagging.errors import DeviceOutOfMemory
from tests.engine.checkpoints import IDEOGRAPHS
from workers.engines.fake import FakeEngine
from workers.engines.network import Packed
from workers.engines.nli import NliEngine, chunks
from workers.engines.passes import PassSize, packed
from workers.engines.tokenizing import Ids, PairEncoder
from workers.ports import Pair

DEADLINE_S = 30.0
PAIRS = st.lists(st.builds(Pair, st.text("abc", max_size=9), st.sampled_from("xyz")), min_size=1, max_size=40)


class Lengths:
    """A network whose logits are the pair's length and nothing; what `start` waits for can be set."""

    def __init__(self, before: Callable[[Packed], None] = lambda rows: None) -> None:
        self._before = before
        self.passes: list[list[int]] = []

    def cost(self, size: PassSize) -> int:
        return packed(size)

    def start(self, rows: Packed) -> Packed:
        self._before(rows)
        self.passes.append(rows.lengths.tolist())
        return rows

    def collect(self, started: Sequence[Packed]) -> NDArray[np.float32]:
        lengths = np.concatenate([rows.lengths for rows in started])
        return np.stack([lengths, np.zeros_like(lengths)], axis=1).astype(np.float32)

    def in_float32(self, rows: Packed) -> None:
        return None

    def close(self) -> None: ...


class Watched(PairEncoder):
    """Says when a second lot of texts is asked for, and makes it wait until it may go on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, max_length=512)
        self.calls = 0
        self.second, self.may_go_on = threading.Event(), threading.Event()

    def texts(self, strings: Iterable[str]) -> dict[str, Ids]:
        self.calls += 1
        if threading.current_thread() is not threading.main_thread():
            self.second.set()
            self.may_go_on.wait(DEADLINE_S)
        return super().texts(strings)


def engine_of(encoder: PairEncoder, network: Lengths, *, max_tokens: int = 40) -> NliEngine:
    return NliEngine(encoder, network, info=FakeEngine().info, max_tokens=max_tokens)


@pytest.fixture(scope="module")
def directory(checkpoint_dir: Callable[[str], Path]) -> Path:
    return checkpoint_dir("plain")


def test_the_next_texts_are_tokenised_while_the_first_pass_runs(directory: Path) -> None:
    encoder = Watched(directory)
    met: list[bool] = []

    def meet(rows: Packed) -> None:
        met.append(encoder.second.wait(DEADLINE_S))
        encoder.may_go_on.set()

    engine_of(encoder, Lengths(before=meet)).entail([Pair(text, "退") for text in IDEOGRAPHS[:30]])
    assert met[0], "the first pass ended only after the second lot of texts was begun"


@given(pairs=PAIRS)
def test_each_distinct_pair_meets_the_network_once_and_answers_keep_their_order(
    directory: Path, pairs: list[Pair]
) -> None:
    encoder, network = PairEncoder(directory, max_length=512), Lengths()
    answer = engine_of(encoder, network).entail(pairs)
    lengths = [pair.tokens for pair in encoder.encode(pairs)]
    assert answer.tokens == lengths
    assert [logit.entailment for logit in answer.logits] == lengths
    assert sum(map(len, network.passes)) == len(set(pairs))
    assert all(lengths == sorted(lengths, reverse=True) for lengths in network.passes), "longest first"


def test_passes_are_as_full_with_chunks_as_without(directory: Path) -> None:
    encoder, network = PairEncoder(directory, max_length=512), Lengths()
    engine_of(encoder, network, max_tokens=52).entail([Pair(text, "退") for text in IDEOGRAPHS[:40]])
    assert network.passes == [[5] * 10] * 4


def test_after_a_failure_no_further_text_is_tokenised(directory: Path) -> None:
    encoder = Watched(directory)

    def refuse(rows: Packed) -> None:
        assert encoder.second.wait(DEADLINE_S)
        raise DeviceOutOfMemory("no room")

    engine = engine_of(encoder, Lengths(before=refuse), max_tokens=6)
    with pytest.raises(DeviceOutOfMemory, match="a single pair"):
        engine.entail([Pair(text, "退") for text in IDEOGRAPHS[:30]])
    encoder.may_go_on.set()
    engine.close()  # waits for the thread
    assert encoder.calls == 2, "the first lot, and the one that was under way"


@given(pairs=PAIRS, max_tokens=st.integers(1, 50))
def test_chunks_hold_every_pair_once_and_the_pairs_of_a_text_together(pairs: list[Pair], max_tokens: int) -> None:
    chunked = chunks(pairs, max_tokens=max_tokens)
    assert sorted(number for chunk in chunked for number in chunk) == list(range(len(pairs)))
    texts = [{pairs[number].text for number in chunk} for chunk in chunked]
    assert sum(map(len, texts)) == len({pair.text for pair in pairs})


def test_the_first_chunk_is_about_a_pass_and_each_is_twice_the_one_before() -> None:
    pairs = [Pair(f"{number:06}", "x") for number in range(70)]  # ten tokens each
    assert [len(chunk) for chunk in chunks(pairs, max_tokens=100)] == [10, 20, 40]
