"""Every network scores as transformers' BertForSequenceClassification does, and as itself alone in any company."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tagging.errors import EngineError, ModelRefused
from tests.engine.networks import (
    ACTIVATIONS,
    BATCHES,
    TOLERANCE,
    Opening,
    alone,
    logits_of,
    of_transformers,
    rows_of,
    with_activation,
)
from workers.engines.network import Network
from workers.engines.openvino_graph import openvino
from workers.engines.openvino_network import OpenVinoNetwork, has_bfloat16
from workers.engines.tokenizing import PairEncoder
from workers.engines.torch_network import TorchNetwork
from workers.ports import Pair


def torch_network(directory: Path, precision: str, cache_dir: Path) -> TorchNetwork:
    return TorchNetwork(directory, device="cpu", precision=precision)


def openvino_network(directory: Path, precision: str, cache_dir: Path) -> OpenVinoNetwork:
    return OpenVinoNetwork(directory, precision=precision, exports=cache_dir / "exported", threads=1)


@pytest.fixture(scope="module", params=[torch_network, openvino_network])
def opening(request: pytest.FixtureRequest, cache_dir: Path) -> Opening:
    return lambda directory, precision="float32": request.param(directory, precision, cache_dir)


@pytest.fixture(scope="module")
def network(opening: Opening, converted: Path) -> Network[Any]:
    return opening(converted)


@given(pairs=BATCHES)
@settings(max_examples=60, deadline=None)
def test_any_batch_scores_as_with_transformers(
    network: Network[Any], encoder: PairEncoder, plain_bert: Any, pairs: list[Pair]
) -> None:
    rows = rows_of(encoder, pairs)
    assert np.abs(logits_of(network, rows) - of_transformers(plain_bert, rows)).max() < TOLERANCE


@given(pairs=BATCHES)
@settings(max_examples=30, deadline=None)
def test_a_pair_scores_alone_as_in_any_company(network: Network[Any], encoder: PairEncoder, pairs: list[Pair]) -> None:
    rows = rows_of(encoder, pairs)
    assert np.abs(logits_of(network, rows) - logits_of(network, *alone(rows))).max() < TOLERANCE


@pytest.mark.skipif(not has_bfloat16(openvino()), reason="this processor has no bfloat16")
def test_rows_that_must_be_mended_score_as_the_checkpoint_in_float32(
    opening: Opening, converted: Path, encoder: PairEncoder, plain_bert: Any
) -> None:
    rows = rows_of(encoder, [Pair("快递三天了", "物流")])
    mended = opening(converted, "bfloat16").in_float32(rows)
    assert mended is not None
    assert np.abs(mended - of_transformers(plain_bert, rows)).max() < TOLERANCE


def test_float32_has_nothing_more_exact(network: Network[Any], encoder: PairEncoder) -> None:
    assert network.in_float32(rows_of(encoder, [Pair("快递", "物流")])) is None


def test_a_closed_network_says_so(opening: Opening, converted: Path, encoder: PairEncoder) -> None:
    network = opening(converted)
    network.close()
    with pytest.raises(EngineError, match="closed"):
        network.start(rows_of(encoder, [Pair("快递", "物流")]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_the_one_of_transformers(
    opening: Opening,
    converted: Path,
    encoder: PairEncoder,
    tmp_path: Path,
    plain_bert_in: Callable[[Path], Any],
    activation: str,
) -> None:
    directory = with_activation(activation, converted, tmp_path)
    rows = rows_of(encoder, [Pair("快递三天了", "物流"), Pair("退", "款")])
    ours = logits_of(opening(directory), rows)
    assert np.abs(ours - of_transformers(plain_bert_in(directory), rows)).max() < TOLERANCE


def test_an_unknown_activation_is_refused(opening: Opening, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="hidden_act is 'silu', expected one of gelu"):
        opening(with_activation("silu", converted, tmp_path))
