"""torch's network computes the same however a pass lies on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagging.errors import ModelRefused
from tests.engine.networks import BATCHES, MAX_LENGTH, TOLERANCE, logits_of, rows_of
from workers.engines.cuda import Compute, Recorded, Streams
from workers.engines.layouts import PackedLayout, PaddedLayout
from workers.engines.linears import has_onednn, mapped_onednn, plain, reordered_onednn
from workers.engines.options import TorchOptions
from workers.engines.tokenizing import PairEncoder
from workers.engines.torch_network import CPU, TorchNetwork
from workers.engines.weights import load_bert
from workers.ports import Pair


@pytest.fixture(scope="module")
def network(converted: Path) -> TorchNetwork:
    return TorchNetwork(converted, device="cpu", precision="float32")


@pytest.mark.parametrize("activation", ["", "gelu", "gelu_new", "relu"])
@pytest.mark.parametrize(
    ("make", "precision", "tolerance"),
    [
        (mapped_onednn, "float32", 1e-5),
        (reordered_onednn, "bfloat16", 0.05),
        (reordered_onednn, "float16", 0.01),
    ],
)
def test_each_kind_of_linear_layer_computes_the_same(
    make: Any, precision: str, tolerance: float, activation: str
) -> None:
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
    if make is reordered_onednn and not has_onednn(precision):
        pytest.skip(f"oneDNN does not compute in {precision} on this processor")
    random = torch.Generator().manual_seed(7)
    rows, weight, bias = (torch.randn(*shape, generator=random) for shape in ((5, 64), (32, 64), (32,)))
    weight /= 8
    with torch.inference_mode():
        expected = plain(weight, bias, activation)(rows)
        layer = make(weight.to(dtype), bias.to(dtype), activation)
        assert (layer(rows.to(dtype)).float() - expected).abs().max() < tolerance


# What is for GPUs, as far as a CPU can run it


@given(pairs=BATCHES)
@settings(max_examples=30, deadline=None)
def test_padded_passes_score_as_packed_ones(
    network: TorchNetwork, padded: TorchNetwork, encoder: PairEncoder, pairs: list[Pair]
) -> None:
    rows = rows_of(encoder, pairs)
    assert np.abs(logits_of(padded, rows) - logits_of(network, rows)).max() < TOLERANCE


@given(batches=st.lists(BATCHES, min_size=2, max_size=4))
@settings(max_examples=20, deadline=None)
def test_replayed_passes_score_as_packed_ones(
    network: TorchNetwork, replaying: PaddedLayout, encoder: PairEncoder, batches: list[list[Pair]]
) -> None:
    passes = [rows_of(encoder, pairs) for pairs in batches]
    with torch.inference_mode():
        replayed = torch.cat([replaying.logits(rows) for rows in passes]).numpy()
    assert np.abs(replayed - logits_of(network, *passes)).max() < TOLERANCE


def test_small_passes_are_replayed_and_large_ones_computed(replaying: PaddedLayout, encoder: PairEncoder) -> None:
    small, large = rows_of(encoder, [Pair("快递", "物流")] * 3), rows_of(encoder, [Pair("快递", "物流")] * 200)
    with torch.inference_mode():
        computed = counting(replaying, lambda: (replaying.logits(small), replaying.logits(small)))
        assert computed == [], "what is recorded is not launched again"
        assert counting(replaying, lambda: replaying.logits(large)) == [(200, 8)]


def test_layers_that_visit_the_device_score_as_layers_that_stay(
    converted: Path, network: TorchNetwork, encoder: PairEncoder
) -> None:
    visiting = load_bert(converted, streams=Streams(CPU), precision="float32", columns=(0, 2), visiting=True)
    rows = rows_of(encoder, [Pair("快递三天了", "物流"), Pair("退", "款")])
    with torch.inference_mode():
        logits = [PackedLayout(visiting, Streams(CPU)).logits(rows).numpy() for _ in range(2)]
    assert np.abs(logits - logits_of(network, rows)).max() < TOLERANCE


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (TorchOptions(max_memory_mb=4096), "limits GPU memory, but the device is cpu"),
        (TorchOptions(offload="layers"), "is for GPUs, but the device is cpu"),
    ],
)
def test_what_only_a_gpu_can_do_is_refused_on_a_cpu(converted: Path, options: TorchOptions, told: str) -> None:
    with pytest.raises(ModelRefused, match=told):
        TorchNetwork(converted, device="cpu", precision="float32", options=options)


@pytest.fixture(scope="module")
def padded(converted: Path) -> TorchNetwork:
    return TorchNetwork(converted, device="cpu", precision="float32", options=TorchOptions(attention="padded"))


@pytest.fixture(scope="module")
def replaying(converted: Path) -> PaddedLayout:
    """Padded passes, recorded as a CPU can: a replay computes again on what lies in the inputs."""

    def record(compute: Compute) -> Recorded:
        output = compute()
        return Recorded(lambda: output.copy_(compute()), output)

    bert = load_bert(converted, streams=Streams(CPU), precision="float32", columns=(0, 2))
    layout = PaddedLayout(bert, Streams(CPU), record=record)
    with torch.inference_mode():
        layout.warm_up(max_length=MAX_LENGTH, max_tokens=512)
    return layout


def counting(layout: PaddedLayout, run: Callable[[], object]) -> list[tuple[int, int]]:
    """The shapes of passes that `run` computes without a recording."""
    computed: list[tuple[int, int]] = []
    compute = layout._compute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_compute", lambda bucket, sent: computed.append(bucket) or compute(bucket, sent))
        recordings = {
            bucket: (inputs, Recorded(lambda: None, recorded.output))
            for bucket, (inputs, recorded) in layout._recorded.items()
        }
        patch.setattr(layout, "_recorded", recordings)
        run()
    return computed


# What lies in memory


def test_float32_weights_are_computed_with_where_they_lie_in_the_file(converted: Path) -> None:
    bert = load_bert(converted, streams=Streams(CPU), precision="float32", columns=(0, 2))
    words = bert._embeddings._words
    mapped = [
        [int(edge, 16) for edge in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if line.endswith(str((converted / "model.safetensors").resolve()))
    ]
    assert any(start <= words.data_ptr() < end for start, end in mapped)
