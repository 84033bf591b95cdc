"""The device a model runs on: whether it is there, how long it took, and what its failures mean."""

from __future__ import annotations

import contextlib
import logging

import torch

from tagging.errors import ModelRefused

PRECISIONS = ("float32", "bfloat16", "float16")
OUT_OF_MEMORY = ("you tried to allocate", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

log = logging.getLogger(__name__)


def choose_device() -> str:
    """The first GPU, or the CPU where there is none."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def default_precision(device: str) -> str:
    return "float16" if device.startswith("cuda") else "float32"


def open_device(name: str, precision: str) -> torch.device:
    """The device called `name`, once it is known to be there and to compute in `precision`.

    Raises:
        ModelRefused: It is not there, or it cannot.
    """
    if precision not in PRECISIONS:
        raise ModelRefused(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelRefused(f"device is {name!r}, expected cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelRefused(f"device is {name!r}, expected cpu, cuda or cuda:N.")
    if device.type == "cuda":
        _check_cuda(device)
    elif precision == "float16":
        log.warning("engine.slow_precision device=cpu precision=float16 hint=bfloat16")
    return device


def _check_cuda(device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        build = torch.version.cuda or "none, this torch is built for CPUs"
        raise ModelRefused(
            f"device is {str(device)!r}, but torch sees {count} GPUs (CUDA of this build: {build})."
            " Check the driver and CUDA_VISIBLE_DEVICES, or set the device to cpu."
        )


def set_threads(threads: int) -> None:
    """Threads of one operation, and one operation at a time."""
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # fixed once anything ran in parallel
        torch.set_num_interop_threads(1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work might have succeeded. CPU allocators raise a plain RuntimeError, known by its words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


def is_lost(error: BaseException) -> bool:
    """Whether every later call will fail, too: after a fault in a kernel, CUDA refuses this process for good."""
    return isinstance(error, torch.AcceleratorError)
