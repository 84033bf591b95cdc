"""The engine's logits are those of ModelScope's pipeline, however pairs are sorted, joined and cut into passes."""

from __future__ import annotations

import logging
import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, ModelRefused
from tests.engine.nasty import NASTY, pairs_of
from tests.engine.reference import Reference
from workers.engines.bert import Rows
from workers.engines.checkpoint import read_checkpoint
from workers.engines.conversion import convert
from workers.engines.nli import NliEngine
from workers.engines.weights import load_weights
from workers.ports import Pair

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(checkpoint_dir: Callable[[str], Path]) -> Reference:
    return Reference(checkpoint_dir("plain"))


@pytest.fixture(scope="module", params=["torch", "openvino"])
def engine(open_engine: Callable[..., NliEngine], request: pytest.FixtureRequest) -> NliEngine:
    return open_engine(exact=True, backend=request.param)


@pytest.mark.parametrize("max_tokens", [1, 600, 4096])
def test_scores_do_not_depend_on_how_pairs_are_batched(
    open_engine: Callable[..., NliEngine], reference: Reference, max_tokens: int
) -> None:
    everything = [pair for name in NASTY for pair in pairs_of(name)]
    random.Random(1).shuffle(everything)
    answer = open_engine(exact=True, max_tokens=max_tokens).entail(everything)
    expected = [reference.logits(pair.text, [pair.hypothesis])[0, [0, 2]] for pair in everything]
    assert np.abs(np.array(answer.logits) - np.array(expected)).max() < TOLERANCE
    assert answer.tokens == [len(reference.ids(pair.text, pair.hypothesis)) for pair in everything]


def test_equal_pairs_are_computed_once(engine: NliEngine) -> None:
    pair = Pair("我要退款", "退款")
    once, thrice = engine.entail([pair]), engine.entail([pair] * 3)
    assert thrice.logits == once.logits * 3
    assert thrice.tokens == once.tokens * 3
    assert thrice.padded_tokens == once.padded_tokens


def test_nothing_in_nothing_out(engine: NliEngine) -> None:
    answer = engine.entail([])
    assert (answer.logits, answer.tokens, answer.padded_tokens) == ([], [], 0)


def test_no_token_of_padding_is_computed(open_engine: Callable[..., NliEngine]) -> None:
    pairs = [Pair("退" * length, "款") for length in (10, 100, 11, 101)]  # 4 tokens more each
    answer = open_engine(max_tokens=220).entail(pairs)
    assert answer.tokens == [14, 104, 15, 105]
    assert answer.padded_tokens == 14 + 104 + 15 + 105


def test_a_typed_separator_does_not_move_the_border(open_engine: Callable[..., NliEngine], engine: NliEngine) -> None:
    typed = [Pair("我要 [SEP] 退款", "物流")]
    assert open_engine().entail(typed).tokens != engine.entail(typed).tokens


def test_a_pair_that_is_not_finite_in_half_precision_is_computed_again_in_float32(
    open_engine: Callable[..., NliEngine], engine: NliEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = open_engine(precision="bfloat16", exact=True)
    pairs = pairs_of("mixed languages")
    expected = half.entail(pairs).logits
    monkeypatch.setattr(half._network, "collect", spoiling(half, row=1, value=math.inf))
    spoilt = next(place for place, logit in enumerate(half.entail(pairs).logits) if logit != expected[place])
    assert np.abs(np.array(half.entail(pairs).logits[spoilt]) - engine.entail(pairs).logits[spoilt]).max() < TOLERANCE


def test_what_is_not_finite_in_float32_either_is_handed_on(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    pairs = pairs_of("mixed languages")
    expected = engine.entail(pairs).logits
    monkeypatch.setattr(engine._network, "collect", spoiling(engine, row=0, value=math.nan))
    changed = [new for new, old in zip(engine.entail(pairs).logits, expected, strict=True) if new != old]
    assert [math.isnan(logit.entailment) for logit in changed] == [True]


def spoiling(engine: NliEngine, *, row: int, value: float) -> Callable[[Sequence[Any]], np.ndarray]:
    """The network's `collect`, with one value in one row."""
    collect = engine._network.collect

    def spoilt(started: Sequence[Any]) -> np.ndarray:
        logits = collect(started)
        logits[row, 0] = value
        return logits

    return spoilt


# Failures of the device


def refusing(engine: NliEngine, fits: Callable[[int, int], bool], error: Exception) -> Callable[..., torch.Tensor]:
    """The network's forward pass on a device that only takes passes of n pairs by m tokens where `fits(n, m)`."""
    bert = engine._network._layout._bert

    def limited(rows: Rows, attention: Any) -> torch.Tensor:
        n, m = len(rows.first), int(rows.positions.max()) + 1
        if not fits(n, m):
            raise error
        return bert_logits(rows, attention)

    bert_logits = bert.logits
    return limited


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "linux", "windows", "python"])
def test_a_pass_that_does_not_fit_is_halved_until_it_does(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = open_engine(max_tokens=4096)
    pairs = [Pair("退" * length, "款") for length in range(1, 30)]
    expected = np.array(engine.entail(pairs).logits)
    monkeypatch.setattr(engine._network._layout._bert, "logits", refusing(engine, lambda n, m: n * m <= 100, error))
    answer = engine.entail(pairs)
    assert np.abs(np.array(answer.logits) - expected).max() < TOLERANCE
    assert answer.shrunk > 0


def test_after_that_passes_are_smaller_and_grow_back_slowly(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(max_tokens=6400)
    logits = engine._network._layout._bert.logits
    monkeypatch.setattr(
        engine._network._layout._bert, "logits", refusing(engine, lambda n, m: n * m <= 100, OUT_OF_MEMORY[0])
    )
    engine.entail([Pair("退" * 10 + str(number), "款") for number in range(10)])
    shrunk = engine._budget.tokens
    assert shrunk <= 100
    monkeypatch.setattr(engine._network._layout._bert, "logits", logits)
    engine.entail([Pair("退", "款")])
    assert engine._budget.tokens == shrunk + 6400 // 64
    for _ in range(70):
        engine.entail([Pair("退", "款")])
    assert engine._budget.tokens == 6400


def test_when_a_single_pair_does_not_fit_nothing_is_scored(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    monkeypatch.setattr(
        engine._network._layout._bert, "logits", refusing(engine, lambda n, m: m < 50, OUT_OF_MEMORY[0])
    )
    with pytest.raises(DeviceOutOfMemory, match="single pair of 104 tokens"):
        engine.entail([Pair("退" * 10, "款"), Pair("退" * 100, "款")])


def test_any_other_failure_is_an_engine_error_and_not_retried(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    calls: list[int] = []

    def fail(rows: Rows, attention: Any) -> torch.Tensor:
        calls.append(len(rows.first))
        raise RuntimeError("mkl: illegal instruction\nlong trace")

    monkeypatch.setattr(engine._network._layout._bert, "logits", fail)
    with pytest.raises(EngineError, match=r"cpu: RuntimeError: mkl: illegal instruction$"):
        engine.entail([Pair("a", "b"), Pair("c", "d")])
    assert calls == [2]


def test_a_fault_in_a_kernel_means_that_the_engine_died(
    open_engine: Callable[..., NliEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    monkeypatch.setattr(engine._network._layout._bert, "logits", refusing(engine, lambda n, m: False, error))
    with pytest.raises(EngineDied, match="device-side assert"):
        engine.entail([Pair("a", "b")])


def test_a_closed_engine_says_so(open_engine: Callable[..., NliEngine]) -> None:
    engine = open_engine()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.entail([Pair("a", "b")])


# What is refused while loading


def test_a_directory_that_lacks_a_weight_is_refused_instead_of_filled_with_random_ones(
    checkpoint_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    converted = convert(read_checkpoint(checkpoint_dir("plain")), tmp_path / "cache")
    spoilt = Path(shutil.copytree(converted, tmp_path / "spoilt"))
    tensors = load_file(spoilt / "model.safetensors")
    del tensors["bert.pooler.dense.weight"]
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"bert\.pooler\.dense\.weight"):
        load_weights(spoilt)


def test_float16_on_a_cpu_works_and_warns(
    open_engine: Callable[..., NliEngine], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        open_engine(precision="float16")
    assert "engine.slow_precision" in caplog.text


def test_an_unknown_precision_lists_the_known_ones(open_engine: Callable[..., NliEngine]) -> None:
    with pytest.raises(ModelRefused, match="float32, bfloat16, float16"):
        open_engine(precision="fp8")
