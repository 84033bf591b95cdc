"""OpenVINO's network scores as transformers' BertForSequenceClassification does, and as itself alone in any company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from transformers import BertForSequenceClassification

from tagging.errors import DeviceOutOfMemory, EngineError, ModelRefused
from tests.engine.networks import BATCHES, MAX_LENGTH, alone, of_transformers, rows_of
from workers.engines import openvino_network
from workers.engines.checkpoint import read_checkpoint
from workers.engines.conversion import convert
from workers.engines.network import Packed
from workers.engines.openvino_graph import ACTIVATIONS, build_graph, feed, filled, openvino
from workers.engines.openvino_network import OpenVinoNetwork, has_bfloat16
from workers.engines.passes import size_of
from workers.engines.tokenizing import PairEncoder
from workers.engines.weights import load_weights
from workers.ports import Pair

TOLERANCE = 1e-5
BFLOAT16 = has_bfloat16(openvino())


@pytest.fixture(scope="module")
def converted(checkpoint_dir: Callable[[str], Path], cache_dir: Path) -> Path:
    return convert(read_checkpoint(checkpoint_dir("plain")), cache_dir)


@pytest.fixture(scope="module")
def encoder(converted: Path) -> PairEncoder:
    return PairEncoder(converted, max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def open_network(converted: Path, cache_dir: Path) -> Callable[[str], OpenVinoNetwork]:
    return lambda precision: OpenVinoNetwork(converted, precision=precision, exports=cache_dir / "exported", threads=1)


@pytest.fixture(scope="module")
def network(open_network: Callable[[str], OpenVinoNetwork]) -> OpenVinoNetwork:
    return open_network("float32")


@pytest.fixture(scope="module")
def plain_bert(converted: Path) -> Any:
    return BertForSequenceClassification.from_pretrained(converted, attn_implementation="eager").eval()


def logits_of(network: OpenVinoNetwork, *passes: Packed) -> np.ndarray:
    return network.collect([network.start(rows) for rows in passes])


@given(pairs=BATCHES)
@settings(max_examples=60, deadline=None)
def test_any_batch_scores_as_with_transformers(
    network: OpenVinoNetwork, encoder: PairEncoder, plain_bert: Any, pairs: list[Pair]
) -> None:
    rows = rows_of(encoder, pairs)
    assert np.abs(logits_of(network, rows) - of_transformers(plain_bert, rows)).max() < TOLERANCE


@given(pairs=BATCHES)
@settings(max_examples=30, deadline=None)
def test_a_pair_scores_alone_as_in_any_company(
    network: OpenVinoNetwork, encoder: PairEncoder, pairs: list[Pair]
) -> None:
    rows = rows_of(encoder, pairs)
    assert np.abs(logits_of(network, rows) - logits_of(network, *alone(rows))).max() < TOLERANCE


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_the_one_of_transformers(converted: Path, encoder: PairEncoder, activation: str) -> None:
    weights, config = load_weights(converted)
    config.hidden_act = activation
    theirs = BertForSequenceClassification(config).eval()
    theirs.load_state_dict(dict(weights))
    rows = rows_of(encoder, [Pair("快递三天了", "物流"), Pair("退", "款")])
    ours = openvino().compile_model(
        build_graph(weights, config, columns=(0, 2)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    logits = ours(list(feed(rows, segments=config.type_vocab_size)))[0]
    assert np.abs(logits - of_transformers(theirs, rows)).max() < TOLERANCE


def test_an_unknown_activation_is_refused(converted: Path) -> None:
    weights, config = load_weights(converted)
    config.hidden_act = "silu"
    with pytest.raises(ModelRefused, match="hidden_act is 'silu', expected one of gelu"):
        build_graph(weights, config, columns=(0, 2))


def test_a_pass_is_filled_up_and_costs_what_it_computes(network: OpenVinoNetwork, encoder: PairEncoder) -> None:
    rows = rows_of(encoder, [Pair("快递三天了", "物流"), Pair("退", "款")])
    computed = len(feed(rows, segments=2).ids)
    assert computed % 16 == 0
    assert network.cost(size_of(rows.lengths.tolist())) == filled(len(rows.ids)) == computed


# Other precisions


@pytest.mark.skipif(not BFLOAT16, reason="this processor has no bfloat16")
def test_rows_that_must_be_mended_score_as_the_checkpoint_in_float32(
    open_network: Callable[[str], OpenVinoNetwork], encoder: PairEncoder, plain_bert: Any
) -> None:
    rows = rows_of(encoder, [Pair("快递三天了", "物流")])
    mended = open_network("bfloat16").in_float32(rows)
    assert mended is not None
    assert np.abs(mended - of_transformers(plain_bert, rows)).max() < TOLERANCE


def test_float32_has_nothing_more_exact(network: OpenVinoNetwork, encoder: PairEncoder) -> None:
    assert network.in_float32(rows_of(encoder, [Pair("快递", "物流")])) is None


class OldProcessor:
    """OpenVINO on a CPU that multiplies in float32 only."""

    def get_property(self, device: str, name: str) -> Sequence[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8"]


def test_bfloat16_is_refused_where_the_processor_would_compute_something_else() -> None:
    with pytest.raises(ModelRefused, match=r"no instructions for it.*Set model\.precision to int8 or float32"):
        openvino_network.check_precision("bfloat16", cast("Any", OldProcessor()))


def test_attention_within_int8_is_float32_where_there_is_no_bfloat16() -> None:
    options = openvino_network.settings("int8", cast("Any", OldProcessor()), threads=2)
    assert (options["INFERENCE_PRECISION_HINT"], options["INFERENCE_NUM_THREADS"]) == ("f32", 2)


def test_another_precision_is_refused_with_those_there_are(open_network: Callable[[str], OpenVinoNetwork]) -> None:
    with pytest.raises(ModelRefused, match="precision is 'float16'; a CPU computes in float32, bfloat16 or int8"):
        open_network("float16")


# Failures


def test_a_closed_network_says_so(open_network: Callable[[str], OpenVinoNetwork], encoder: PairEncoder) -> None:
    network = open_network("float32")
    network.close()
    with pytest.raises(EngineError, match="closed"):
        network.start(rows_of(encoder, [Pair("快递", "物流")]))


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError("std::bad_alloc"), DeviceOutOfMemory),
        (RuntimeError("Exception from src: std::bad_alloc"), DeviceOutOfMemory),
        (RuntimeError("shapes do not agree"), EngineError),
    ],
)
def test_what_openvino_raises_becomes_an_error_of_the_engine(
    open_network: Callable[[str], OpenVinoNetwork], encoder: PairEncoder, raised: Exception, expected: type[Exception]
) -> None:
    class Failing:
        def infer(self, _: object) -> object:
            raise raised

    network = open_network("float32")
    network._request = Failing()
    with pytest.raises(EngineError, match="cpu: ") as caught:
        network.start(rows_of(encoder, [Pair("快递", "物流")]))
    assert type(caught.value) is expected
