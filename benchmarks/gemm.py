"""How fast this machine multiplies at the shapes of a model's linear layers: the peak that an engine is held against.

For each precision the best of torch (MKL, oneDNN) and OpenVINO, at the number of rows that suits it best.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import openvino as ov
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from openvino import opset13

from workers.engines.openvino_graph import openvino

op: Any = opset13  # OpenVINO's operators carry no types
Multiply = Callable[[], object]


class Shape(NamedTuple):
    """A product of (rows, inner) by (inner, outer)."""

    rows: int
    inner: int
    outer: int


_ROWS: Final = (512, 1024, 2048)
_REPEATS: Final = 6


def gemm_peak(precision: str, *, hidden: int, intermediate: int, device: str, threads: int) -> float:
    """GFLOP a second: of CPU time on a CPU, of wall time on a GPU; the layer's four products weighted by their work."""
    shapes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, intermediate), (intermediate, hidden))
    torch.set_num_threads(threads)
    work = seconds = 0.0
    for inner, outer in shapes:
        best = max(
            _rate(multiply, 2e-9 * rows * inner * outer, device)
            for rows in _ROWS
            for multiply in _candidates(precision, Shape(rows, inner, outer), device, threads)
        )
        work += inner * outer
        seconds += inner * outer / best
    return work / seconds


def _rate(multiply: Multiply, gflop: float, device: str) -> float:
    """The best of some runs: a peak is what can be reached, and others use this machine as well."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    multiply()
    best = math.inf
    for _ in range(_REPEATS):
        began = clock()
        multiply()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, clock() - began)
    return gflop / best


def _candidates(precision: str, shape: Shape, device: str, threads: int) -> Iterator[Multiply]:
    if precision == "int8":
        yield _of_onednn_int8(shape)
    else:
        yield from _of_torch(precision, shape, device)
    if device == "cpu":
        yield _of_openvino(precision, shape, threads)


def _of_torch(precision: str, shape: Shape, device: str) -> Iterator[Multiply]:
    rows, inner, outer = shape
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    states = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(outer, inner, device=device, dtype=dtype)
    yield torch.inference_mode()(lambda: F.linear(states, weight))
    if device == "cpu":
        reorder: Any = torch.ops.mkldnn._reorder_linear_weight
        onednn: Any = torch.ops.mkldnn._linear_pointwise.default
        packed = reorder(weight, None)
        yield torch.inference_mode()(lambda: onednn(states, packed, None, "none", [], ""))


def _of_onednn_int8(shape: Shape) -> Multiply:
    """u8 by s8, answered in u8."""
    rows, inner, outer = shape
    states = torch.randint(0, 255, (rows, inner), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (outer, inner), dtype=torch.int8)
    onednn: Any = torch.ops.onednn
    packed = onednn.qlinear_prepack(weight, [rows, inner])
    scales, zeros = torch.ones(outer), torch.zeros(outer, dtype=torch.int64)
    return lambda: onednn.qlinear_pointwise(
        states, 0.1, 128, packed, scales, zeros, None, 1000.0, 128, torch.uint8, "none", [], ""
    )


def _of_openvino(precision: str, shape: Shape, threads: int) -> Multiply:
    rows, inner, outer = shape
    states = op.parameter([rows, inner], ov.Type.f32)
    weight = op.constant(np.random.default_rng(1).standard_normal((outer, inner), dtype=np.float32))
    left, right = (_quantised(states, 256), _quantised(weight, 255)) if precision == "int8" else (states, weight)
    product = op.matmul(left, right, False, True)
    compiled: Any = openvino().compile_model(
        ov.Model([op.result(_quantised(product, 256) if precision == "int8" else product)], [states], "product"),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        },
    )
    request: Any = compiled.create_infer_request()
    inputs = [np.random.default_rng(2).standard_normal((rows, inner), dtype=np.float32)]
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


def _quantised(node: Any, levels: int) -> Any:
    low, high = (op.constant(np.float32(bound)) for bound in (-4.0, 4.0))
    return op.fake_quantize(node, low, high, low, high, levels)
