"""The weights of a converted checkpoint: every tensor of the network and nothing else, mapped from the file."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from transformers import BertConfig

from workers.engines.bert import Weights
from workers.engines.conversion import check_tensors, load_tensors

# transformers builds networks under process-wide state; those built by several threads at once came out without weights
# in some of its versions.
_loading = threading.Lock()


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


def placed(weights: Weights, *, device: torch.device, dtype: torch.dtype) -> Weights:
    """The tensors on `device` in `dtype`; those that are so already are not copied."""
    return {name: tensor.to(device, dtype) for name, tensor in weights.items()}
