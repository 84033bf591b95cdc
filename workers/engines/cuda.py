"""What only a GPU has: pinned memory, streams that overlap, recorded passes, a ceiling for memory.

None of it has run on a GPU yet. What can be is exercised on CPUs, by the same code: torch gives them streams that do
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tagging.errors import ModelRefused

Compute = Callable[[], torch.Tensor]
VARLEN_CAPABILITY = (8, 0)  # what the kernels of FlashAttention need


class Recorded(NamedTuple):
    """A pass that can be repeated on whatever lies in its inputs by then."""

    replay: Callable[[], None]
    output: torch.Tensor  # overwritten by each replay


class Streams:
    """Two queues of a device: one computes, the other copies meanwhile. On a CPU both are torch's that do nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pins = device.type == "cuda"
        self._module: Any = torch.cuda if self.pins else torch.cpu
        self.copying: Any = self._module.Stream(device)

    @property
    def computing(self) -> Any:
        """The stream that passes are put on."""
        return self._module.current_stream(self.device)

    def on_copying(self) -> AbstractContextManager[Any]:
        """Within it, what is put on the device goes to the copying stream."""
        context: AbstractContextManager[Any] = self._module.stream(self.copying)
        return context

    def event(self) -> Any:
        """A mark to put on a stream and to wait for on another."""
        return self._module.Event()

    def send(self, *arrays: NDArray[np.int32]) -> list[torch.Tensor]:
        """The arrays on the device, usable by what is computed from now on. Nothing waits for the copy here.

        It goes from pinned memory. The blocks are torch's, which takes them back when a copy is done.
        """
        sizes = [array.size for array in arrays]
        staged = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=self.pins)
        np.concatenate(arrays, out=staged.numpy())
        with self.on_copying():
            sent = staged.to(self.device, non_blocking=True)
        self.computing.wait_stream(self.copying)
        if self.pins:
            sent.record_stream(self.computing)  # its memory is the copying stream's, which must not reuse it yet
        return list(torch.split(sent, sizes))


class Recorder:
    """Records passes as CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Recorded:
        """A recording of what `compute` puts on the device; its inputs must stay where they are."""
        new_stream: Any = torch.cuda.Stream
        stream = new_stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            compute()  # libraries allocate on first use, which cannot be recorded
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = compute()
        return Recorded(graph.replay, output)


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention over packed pairs has a kernel there."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    capability: tuple[int, int] = torch.cuda.get_device_capability(device)
    return capability >= VARLEN_CAPABILITY


def limit_memory(device: torch.device, max_memory_mb: int) -> None:
    """Let this process take so much of the GPU's memory and no more; what exceeds it is out of memory.

    Raises:
        ModelRefused: It is no GPU, or has less.
    """
    if device.type != "cuda":
        raise ModelRefused(
            f"model.max_memory_mb is {max_memory_mb}, which limits GPU memory, but the device is {device}."
            " Leave it 0; on a CPU, lower model.max_tokens_per_pass or limit the whole process."
        )
    total_mb = torch.cuda.get_device_properties(device).total_memory >> 20
    if max_memory_mb > total_mb:
        raise ModelRefused(f"model.max_memory_mb is {max_memory_mb}, but {device} has {total_mb}. Set less.")
    torch.cuda.set_per_process_memory_fraction(max_memory_mb / total_mb, device)
