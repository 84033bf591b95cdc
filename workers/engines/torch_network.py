"""BERT in torch, on a CPU or a CUDA device, as a `Network`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError
from workers.engines.attention import GroupedAttention
from workers.engines.bert import Bert, Rows
from workers.engines.device import is_lost, is_out_of_memory, open_device
from workers.engines.linears import choose_linear
from workers.engines.network import Packed
from workers.engines.passes import PassSize, packed
from workers.engines.weights import load_weights, placed

CPU = torch.device("cpu")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # what is not a linear layer
}


class TorchNetwork:
    """Computes packed rows: no token of padding, and in the last layer only what the first tokens need.

    Args:
        directory: A converted checkpoint (`workers.engines.conversion`).
        device: In torch's words.
        precision: float32, bfloat16, float16 or int8.
        columns: Which classes are entailment and contradiction.

    Raises:
        ModelRefused: The weights, the device or the precision is not one this network can serve.
    """

    def __init__(self, directory: Path, *, device: str, precision: str, columns: tuple[int, int] = (0, 2)) -> None:
        self._directory = directory
        self._device = open_device(device, precision)
        self._precision = precision
        self._columns = columns
        self._bert: Bert | None = load_bert(directory, device=self._device, precision=precision, columns=columns)

    def cost(self, size: PassSize) -> int:
        """Tokens that a pass computes: those of its pairs."""
        return packed(size)

    def start(self, rows: Packed) -> torch.Tensor:
        """Logits on the device, shape (pairs, 2); see `Network`."""
        if self._bert is None:
            raise EngineError("this engine is closed")
        with errors_of(self._device), torch.inference_mode():
            return forward(self._bert, rows, self._device)

    def collect(self, started: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """All logits, in one copy from the device; see `Network`."""
        with errors_of(self._device), torch.inference_mode():
            logits: NDArray[np.float32] = torch.cat(list(started)).float().cpu().numpy()
            return logits

    def in_float32(self, rows: Packed) -> NDArray[np.float32] | None:
        """Logits of the checkpoint's own weights in float32 on the CPU, which reads them from the mapped file."""
        if self._precision == "float32":
            return None
        bert = load_bert(self._directory, device=CPU, precision="float32", columns=self._columns)
        with torch.inference_mode():
            logits: NDArray[np.float32] = forward(bert, rows, CPU).numpy()
            return logits

    def close(self) -> None:
        """Give the device's memory back."""
        self._bert = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def load_bert(directory: Path, *, device: torch.device, precision: str, columns: Sequence[int]) -> Bert:
    """The network in `directory`, every weight of it from there, ready to infer.

    Raises:
        ModelRefused: A weight is missing, unexpected or of another shape, or the activation is unknown.
    """
    stored, config = load_weights(directory)
    with torch.inference_mode():
        weights = placed(stored, device=device, dtype=DTYPES[precision])
        mapped = all(weights[name] is tensor for name, tensor in stored.items())
        return Bert(weights, config, linear=choose_linear(precision, device, mapped=mapped), columns=columns)


def forward(bert: Bert, rows: Packed, device: torch.device) -> torch.Tensor:
    """Logits of the rows, shape (pairs, 2)."""
    return bert.logits(rows_on(device, rows), GroupedAttention(rows.lengths.tolist()))


def rows_on(device: torch.device, rows: Packed) -> Rows:
    """The rows as tensors on the device."""
    ends = np.cumsum(rows.lengths, dtype=np.int32)
    first = ends - rows.lengths
    positions = np.arange(len(rows.ids), dtype=np.int32) - np.repeat(first, rows.lengths)
    return Rows(*(torch.from_numpy(array).to(device) for array in (rows.ids, rows.segments, positions, first)))


@contextlib.contextmanager
def errors_of(device: torch.device) -> Iterator[None]:
    """What torch raises, as the errors of `Network`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = f"{device}: {_first_line(error)}"
        if not is_out_of_memory(error):
            raise (EngineDied if is_lost(error) else EngineError)(told) from error
    else:
        return
    # Outside the handler: the exception holds the frames, and with them the tensors, that we want freed.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise DeviceOutOfMemory(told)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
