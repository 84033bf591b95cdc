"""Linear layers, each in the form that is fastest for its weights on its device.

On CPUs the operators of oneDNN are called by name: what torch takes for float32 by itself (MKL) is slower, and here an
activation costs no pass of its own. Weights that are computed with as they lie in the file stay mapped, so that all
processes of a machine share them; weights that had to be converted, and so are copies already, are reordered to the
layout that oneDNN wants. ADR-0007 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it

Linear = Callable[[torch.Tensor], torch.Tensor]
Activation = Callable[[torch.Tensor], torch.Tensor]
MakeLinear = Callable[[torch.Tensor, torch.Tensor, str], Linear]
"""Makes a layer of a weight (out, in), a bias (out,) and the name of an activation, or "" for none."""

ACTIVATIONS: dict[str, Activation] = {
    "": lambda rows: rows,
    "gelu": F.gelu,
    "gelu_new": lambda rows: F.gelu(rows, approximate="tanh"),
    "gelu_pytorch_tanh": lambda rows: F.gelu(rows, approximate="tanh"),
    "relu": F.relu,
}
_ONEDNN = {"": ("none", ""), "gelu": ("gelu", "none"), "relu": ("relu", "")}


def choose_linear(precision: str, device: torch.device, *, mapped: bool) -> MakeLinear:
    """How linear layers are made for this precision on this device.

    Args:
        mapped: Whether the weights lie in their file, shared with other processes, and should stay there.
    """
    if device.type == "cpu" and has_onednn(precision):
        return mapped_onednn if mapped else reordered_onednn
    return plain


def has_onednn(precision: str) -> bool:
    """Whether oneDNN is in this torch and computes in this precision on this processor."""
    onednn: Any = torch.backends.mkldnn
    if not onednn.is_available():
        return False
    match precision:
        case "bfloat16":
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        case "float16":
            return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
        case _:
            return True


def plain(weight: torch.Tensor, bias: torch.Tensor, activation: str) -> Linear:
    """As torch does it."""
    act = ACTIVATIONS[activation]
    return lambda rows: act(F.linear(rows, weight, bias))


def mapped_onednn(weight: torch.Tensor, bias: torch.Tensor, activation: str) -> Linear:
    """Through oneDNN, on the weight where it lies."""
    if activation not in _ONEDNN:
        act, linear = ACTIVATIONS[activation], mapped_onednn(weight, bias, "")
        return lambda rows: act(linear(rows))
    kind, algorithm = _ONEDNN[activation]
    compute: Any = torch.ops.mkldnn._linear_pointwise.default
    return lambda rows: compute(rows, weight, bias, kind, [], algorithm)


def reordered_onednn(weight: torch.Tensor, bias: torch.Tensor, activation: str) -> Linear:
    """Through oneDNN, on a copy of the weight in oneDNN's own layout."""
    reorder: Any = torch.ops.mkldnn._reorder_linear_weight
    return mapped_onednn(reorder(weight, None), bias, activation)
