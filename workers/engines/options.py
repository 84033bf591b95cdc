"""How a network is computed. No framework is imported here, so that a parent of an engine process can say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagging.settings import ModelSettings

Backend = Literal["auto", "openvino", "torch"]
"""What computes; `auto` is OpenVINO on a CPU and torch on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """How torch computes the network; the answers are the same."""

    attention: Literal["auto", "packed", "padded"] = "auto"
    """auto: packed on CPUs and where a GPU has kernels for it in this precision, else padded."""
    cuda_graphs: bool = True
    """GPU, padded: replay small passes instead of launching each kernel."""
    max_memory_mb: int = 0
    """GPU: memory that this process may take; 0: all there is."""
    offload: Literal["none", "layers"] = "none"
    """layers: weights of layers stay in the machine's memory and visit the GPU."""


DEFAULT = TorchOptions()


def options_of(model: ModelSettings) -> TorchOptions:
    """What the settings ask for."""
    return TorchOptions(
        attention=model.attention,
        cuda_graphs=model.cuda_graphs,
        max_memory_mb=model.max_memory_mb,
        offload=model.offload,
    )
