"""What is OpenVINO's own: filled passes, precisions that a processor has or has not, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tagging.errors import DeviceOutOfMemory, EngineError, ModelRefused
from tests.engine.networks import rows_of
from workers.engines import openvino_network
from workers.engines.openvino_graph import feed, filled
from workers.engines.openvino_network import OpenVinoNetwork
from workers.engines.passes import size_of
from workers.engines.tokenizing import PairEncoder
from workers.ports import Pair


@pytest.fixture(scope="module")
def open_network(converted: Path, cache_dir: Path) -> Callable[[str], OpenVinoNetwork]:
    return lambda precision: OpenVinoNetwork(converted, precision=precision, exports=cache_dir / "exported", threads=1)


@pytest.fixture(scope="module")
def network(open_network: Callable[[str], OpenVinoNetwork]) -> OpenVinoNetwork:
    return open_network("float32")


def test_a_pass_is_filled_up_and_costs_what_it_computes(network: OpenVinoNetwork, encoder: PairEncoder) -> None:
    rows = rows_of(encoder, [Pair("快递三天了", "物流"), Pair("退", "款")])
    computed = len(feed(rows, segments=2).ids)
    assert computed % 16 == 0
    assert network.cost(size_of(rows.lengths.tolist())) == filled(len(rows.ids)) == computed


# Other precisions


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
