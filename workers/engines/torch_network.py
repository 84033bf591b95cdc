"""BERT in torch, on a CPU or a CUDA device, as a `Network`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError, ModelRefused
from workers.engines.bert import Bert
from workers.engines.cuda import Recorder, Streams, has_varlen, limit_memory
from workers.engines.device import is_lost, is_out_of_memory, open_device
from workers.engines.layouts import Layout, PackedLayout, PaddedLayout
from workers.engines.network import Packed
from workers.engines.options import DEFAULT, TorchOptions
from workers.engines.passes import PassSize
from workers.engines.weights import DTYPES, load_bert

CPU = torch.device("cpu")


class TorchNetwork:
    """Computes BERT's logits, in the last layer only for the tokens that are read.

    Args:
        directory: A converted checkpoint (`workers.engines.conversion`).
        device: In torch's words.
        precision: float32, bfloat16 or float16.
        columns: Which classes are entailment and contradiction.

    Raises:
        ModelRefused: The weights, the device, the precision or an option is not one this network can serve.
    """

    def __init__(
        self,
        directory: Path,
        *,
        device: str,
        precision: str,
        columns: tuple[int, int] = (0, 2),
        options: TorchOptions = DEFAULT,
    ) -> None:
        self._directory = directory
        self._device = open_device(device, precision)
        self._precision = precision
        self._columns = columns
        if options.max_memory_mb:
            limit_memory(self._device, options.max_memory_mb)
        streams = Streams(self._device)
        bert = load_bert(
            directory, streams=streams, precision=precision, columns=columns, visiting=_visiting(self._device, options)
        )
        self._layout: Layout | None = choose_layout(bert, streams, precision, options)

    def cost(self, size: PassSize) -> int:
        """Tokens that a pass computes; see `Network`."""
        return self._open_layout().cost(size)

    def warm_up(self, *, max_length: int, max_tokens: int) -> None:
        """Record the passes that are replayed later, each up to so many tokens a pair and in all."""
        with errors_of(self._device), torch.inference_mode():
            self._open_layout().warm_up(max_length=max_length, max_tokens=max_tokens)

    def start(self, rows: Packed) -> torch.Tensor:
        """Logits on the device, shape (pairs, 2); see `Network`."""
        with errors_of(self._device), torch.inference_mode():
            return self._open_layout().logits(rows)

    def collect(self, started: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """All logits, in one copy from the device; see `Network`."""
        with errors_of(self._device), torch.inference_mode():
            logits: NDArray[np.float32] = torch.cat(list(started)).float().cpu().numpy()
            return logits

    def in_float32(self, rows: Packed) -> NDArray[np.float32] | None:
        """Logits of the checkpoint's own weights in float32 on the CPU, which reads them from the mapped file."""
        if self._precision == "float32":
            return None
        streams = Streams(CPU)
        with errors_of(CPU), torch.inference_mode():
            bert = load_bert(self._directory, streams=streams, precision="float32", columns=self._columns)
            logits: NDArray[np.float32] = PackedLayout(bert, streams).logits(rows).numpy()
            return logits

    def close(self) -> None:
        """Give the device's memory back."""
        self._layout = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _open_layout(self) -> Layout:
        if self._layout is None:
            raise EngineError("this engine is closed")
        return self._layout


def choose_layout(bert: Bert, streams: Streams, precision: str, options: TorchOptions) -> Layout:
    """Whether passes are packed or padded, and whether padded ones are recorded.

    Raises:
        ModelRefused: Packed passes are asked for where the GPU has no kernel for them.
    """
    on_cuda = streams.device.type == "cuda"
    packs = not on_cuda or has_varlen(streams.device, DTYPES[precision])
    if options.attention == "packed" and not packs:
        raise ModelRefused(
            f"model.attention is packed, which needs float16 or bfloat16 and compute capability 8.0; {streams.device}"
            f" in {precision} is not that. Set it to padded, or leave it auto."
        )
    if packs and options.attention != "padded":
        return PackedLayout(bert, streams)
    # A layer that visits is copied while others compute, which a recording would do at its own times.
    records = on_cuda and options.cuda_graphs and options.offload == "none"
    return PaddedLayout(bert, streams, record=Recorder(streams.device) if records else None)


def _visiting(device: torch.device, options: TorchOptions) -> bool:
    if options.offload == "layers" and device.type != "cuda":
        raise ModelRefused(
            f"model.offload is layers, which is for GPUs, but the device is {device}: there float32 weights stay in"
            " their mapped file anyway. Set it to none."
        )
    return options.offload == "layers"


@contextlib.contextmanager
def errors_of(device: torch.device) -> Iterator[None]:
    """What torch raises, as the errors of `Network`."""
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        told = f"{device}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if not is_out_of_memory(error):
            raise (EngineDied if is_lost(error) else EngineError)(told) from error
    # Outside the handler: the exception holds the frames, and with them the tensors, that we want freed.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise DeviceOutOfMemory(told)
