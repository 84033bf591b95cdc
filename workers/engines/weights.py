"""The weights of a converted checkpoint: every tensor of the network and nothing else, mapped from the file."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from tagging.errors import ModelRefused
from workers.engines.bert import Bert, Layer, Weights, layer_weights
from workers.engines.conversion import check_tensors, load_tensors
from workers.engines.cuda import Streams
from workers.engines.linears import ACTIVATIONS, choose_linear
from workers.engines.offload import VisitingLayers

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# transformers builds networks under process-wide state; those built by several threads at once came out without weights
# in some of its versions.
_loading = threading.Lock()


def load_bert(
    directory: Path, *, streams: Streams, precision: str, columns: Sequence[int], visiting: bool = False
) -> Bert:
    """The network in `directory`, every weight of it from there, ready to infer on the device of `streams`.

    Args:
        columns: Which classes are answered.
        visiting: Whether layers stay in the machine's memory and visit the device.

    Raises:
        ModelRefused: A weight is missing, unexpected or of another shape, or the activation is unknown.
    """
    stored, config = load_weights(directory)
    if config.hidden_act not in ACTIVATIONS:
        known = ", ".join(filter(None, ACTIVATIONS))
        raise ModelRefused(f"{directory}: hidden_act is {config.hidden_act!r}, expected one of {known}.")
    with torch.inference_mode():
        dtype = DTYPES[precision]
        mapped = all(tensor.dtype == dtype for tensor in stored.values())
        linear = choose_linear(precision, streams.device, mapped=mapped)
        make = partial(Layer, config=config, linear=linear)
        hosted = (_to(layer_weights(stored, index), dtype=dtype) for index in range(config.num_hidden_layers))
        layers: Iterable[Layer]
        if visiting:
            layers = VisitingLayers([_pinned(streams, weights) for weights in hosted], make=make, streams=streams)
        else:
            layers = [make(_to(weights, device=streams.device)) for weights in hosted]
        outer = {name: tensor for name, tensor in stored.items() if not name.startswith("bert.encoder.")}
        weights = _to(outer, dtype=dtype, device=streams.device)
        return Bert(weights, config, layers=layers, linear=linear, columns=columns)


def load_weights(directory: Path) -> tuple[Weights, BertConfig]:
    """The tensors in `directory`, by transformers' names, and the sizes they have.

    They lie in the mapped file: pages are read when they are computed with, and shared by all processes that map it.

    Raises:
        ModelRefused: A tensor is missing, unexpected, of another shape or not finite.
    """
    path = directory / "model.safetensors"
    with _loading:
        config: BertConfig = BertConfig.from_pretrained(directory, local_files_only=True)
        tensors = load_tensors(path)
        check_tensors(tensors, config, path)
    return tensors, config


def _to(weights: Weights, **place: Any) -> Weights:
    return {name: tensor.to(**place) for name, tensor in weights.items()}


def _pinned(streams: Streams, weights: Weights) -> Weights:
    return {name: tensor.pin_memory() if streams.pins else tensor for name, tensor in weights.items()}
