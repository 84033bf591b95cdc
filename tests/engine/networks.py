"""Batches and checkpoints for the networks' tests, and what transformers makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from tests.engine.checkpoints import IDEOGRAPHS
from workers.engines.network import Network, Packed
from workers.engines.tokenizing import PairEncoder, pack
from workers.ports import Pair

TOLERANCE = 1e-5
ACTIVATIONS = ["gelu", "gelu_new", "relu"]
MAX_LENGTH = 96  # so that examples are truncated, too

TEXTS = st.builds(
    lambda text, times: text * times, st.text(st.sampled_from(IDEOGRAPHS), max_size=20), st.integers(1, 9)
)
PAIRS = st.builds(Pair, TEXTS, st.text(st.sampled_from(IDEOGRAPHS), max_size=8))
BATCHES = st.lists(PAIRS, min_size=1, max_size=12)


Opening = Callable[..., Network[Any]]
"""Opens a network on a converted checkpoint, in float32 unless it is told another precision."""


def rows_of(encoder: PairEncoder, pairs: Sequence[Pair]) -> Packed:
    return pack(sorted(encoder.encode(pairs), key=lambda pair: -pair.tokens))


def of_transformers(bert: Any, rows: Packed) -> np.ndarray:
    """Logits of the rows, padded to the longest and masked as transformers would have them."""
    present = torch.arange(int(rows.lengths[0]))[None] < torch.from_numpy(rows.lengths)[:, None]
    ids, segments = torch.zeros(present.shape, dtype=torch.long), torch.zeros(present.shape, dtype=torch.long)
    ids[present], segments[present] = torch.from_numpy(rows.ids).long(), torch.from_numpy(rows.segments).long()
    with torch.inference_mode():
        logits: torch.Tensor = bert(input_ids=ids, token_type_ids=segments, attention_mask=present.long()).logits
    return logits[:, [0, 2]].numpy()


def alone(rows: Packed) -> list[Packed]:
    ends = np.cumsum(rows.lengths)
    return [
        Packed(rows.ids[end - length : end], rows.segments[end - length : end], rows.lengths[place : place + 1])
        for place, (end, length) in enumerate(zip(ends, rows.lengths, strict=True))
    ]


def logits_of(network: Network[Any], *passes: Packed) -> np.ndarray:
    return network.collect([network.start(rows) for rows in passes])


def with_activation(activation: str, converted: Path, tmp_path: Path) -> Path:
    directory = shutil.copytree(converted, tmp_path / activation)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"hidden_act": activation}), encoding="utf-8")
    return directory
