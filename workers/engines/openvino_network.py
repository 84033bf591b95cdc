"""BERT through OpenVINO, on a CPU, as a `Network`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from tagging.errors import DeviceOutOfMemory, EngineError, ModelRefused
from workers.engines import heap
from workers.engines.cores import usable_cores
from workers.engines.device import is_out_of_memory
from workers.engines.network import Packed
from workers.engines.openvino_graph import build_graph, feed, filled, openvino
from workers.engines.passes import PassSize
from workers.engines.quantization import quantized_graph
from workers.engines.weights import load_weights

HINTS: Final = {"float32": "f32", "bfloat16": "bf16"}
"""Precisions that are a property of how a graph is run; int8 is one of the graph itself."""

_WARM_LENGTHS: Final = (16, 32, 64, 128, 256)


class OpenVinoNetwork:
    """Computes packed rows on the CPU; see `workers.engines.openvino_graph` for how.

    Args:
        directory: A converted checkpoint (`workers.engines.conversion`).
        precision: float32, bfloat16 or int8.
        exports: Where graphs that take long to make are kept.
        threads: How many compute; None for as many as the cores this process may use.
        columns: Which classes are entailment and contradiction.

    Raises:
        ModelRefused: The weights or the precision are not what this network can serve.
    """

    def __init__(
        self,
        directory: Path,
        *,
        precision: str,
        exports: Path,
        threads: int | None = None,
        columns: tuple[int, int] = (0, 2),
    ) -> None:
        self._directory = directory
        self._precision = precision
        self._exports = exports
        self._threads = threads or usable_cores()
        self._columns = columns
        core = openvino()
        check_precision(precision, core)
        weights, config = load_weights(directory)
        self._segments: int = config.type_vocab_size
        if precision == "int8":
            graph = quantized_graph(directory, weights, config, columns=columns, exports=exports)
        else:
            graph = build_graph(weights, config, columns=columns)
        compiled: Any = core.compile_model(graph, "CPU", settings(precision, core, threads=self._threads))
        self._request: Any = compiled.create_infer_request()
        del graph, weights
        gc.collect()  # the weights as they came: the compiled graph has its own, in the processor's layout
        heap.give_back()

    def cost(self, size: PassSize) -> int:
        """Tokens that a pass computes: those of its pairs, and a few that fill it up."""
        return filled(size.tokens)

    def warm_up(self, *, max_length: int, max_tokens: int) -> None:
        """Compute full passes of several lengths, so that their kernels are made and their memory is there."""
        for length in (*(width for width in _WARM_LENGTHS if width < max_length), max_length):
            pairs = max(1, max_tokens // length)
            tokens = np.zeros(pairs * length, dtype=np.int32)
            self.start(Packed(tokens, tokens, np.full(pairs, length, dtype=np.int32)))

    def start(self, rows: Packed) -> NDArray[np.float32]:
        """Logits, shape (pairs, 2); see `Network`. A CPU has computed them when this returns."""
        if self._request is None:
            raise EngineError("this engine is closed")
        with _as_engine_errors():
            logits: NDArray[np.float32] = self._request.infer(list(feed(rows, segments=self._segments)))[0].copy()
            return logits

    def collect(self, started: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """All logits; see `Network`."""
        return np.concatenate(started)

    def in_float32(self, rows: Packed) -> NDArray[np.float32] | None:
        """Logits of the checkpoint's own weights in float32, through a network that is loaded for them alone."""
        if self._precision == "float32":
            return None
        network = OpenVinoNetwork(
            self._directory,
            precision="float32",
            exports=self._exports,
            threads=self._threads,
            columns=self._columns,
        )
        return network.start(rows)

    def close(self) -> None:
        """Give the memory back."""
        self._request = None


def check_precision(precision: str, core: ov.Core) -> None:
    """Refuse what this processor would silently compute otherwise, or not at all.

    Raises:
        ModelRefused: It says what to set instead.
    """
    if precision not in (*HINTS, "int8"):
        raise ModelRefused(f"precision is {precision!r}; a CPU computes in {', '.join(HINTS)} or int8.")
    if precision == "bfloat16" and not has_bfloat16(core):
        raise ModelRefused(
            "precision is bfloat16, but this processor has no instructions for it (AVX512-BF16 or AMX)."
            " Set model.precision to int8 or float32."
        )


def has_bfloat16(core: ov.Core) -> bool:
    """Whether this processor multiplies in bfloat16."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def settings(precision: str, core: ov.Core, *, threads: int) -> dict[str, Any]:
    """How a graph is compiled: one pass at a time on so many threads, which stay off other processes' cores.

    Attention within an int8 graph is not quantised: it is computed in bfloat16 where the processor can.
    """
    rest = "bf16" if precision == "int8" and has_bfloat16(core) else HINTS.get(precision, "f32")
    return {
        "INFERENCE_PRECISION_HINT": rest,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Two workers on one machine would both pin themselves to its first cores. The supervisor divides the cores.
        "ENABLE_CPU_PINNING": False,
    }


@contextlib.contextmanager
def _as_engine_errors() -> Iterator[None]:
    """What OpenVINO raises, as the errors of `Network`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = f"cpu: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        out_of_memory = is_out_of_memory(error) or "bad_alloc" in str(error)
        raise (DeviceOutOfMemory if out_of_memory else EngineError)(told) from error
