"""What the engine needs from a network: one page, no implementation and no framework.

`NliEngine` does what is true for any of them (tokenising, sorting, cutting into passes, shrinking, scattering back); a
network computes logits of rows of token ids on one device, in whatever framework it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from workers.engines.passes import PassSize

Started = TypeVar("Started")
"""What `start` gives and `collect` takes: a pass under way, the network's own business."""


class Packed(NamedTuple):
    """Pairs end to end, longest first, without a token between them."""

    ids: NDArray[np.int32]  # (tokens,)
    segments: NDArray[np.int32]  # (tokens,): 0 for [CLS] text [SEP], 1 for hypothesis [SEP]
    lengths: NDArray[np.int32]  # (pairs,): tokens of each, falling


class Network(Protocol[Started]):
    """Entailment and contradiction logits of rows of token ids, on one device. For one thread at a time."""

    def cost(self, size: PassSize) -> int:
        """Tokens that a pass of this size computes: what counts against the token budget.

        `size.tokens` where no padding is computed, `size.pairs * size.longest` where rows are padded, more where they
        are padded to buckets.
        """
        ...

    def start(self, rows: Packed) -> Started:
        """Put one pass on the device; may return before it is computed.

        Raises:
            DeviceOutOfMemory: There is no room for it. Nothing of it is kept, so a smaller one may fit.
            EngineDied: The device is lost until the process starts anew.
            EngineError: The device failed.
        """
        ...

    def collect(self, started: Sequence[Started]) -> NDArray[np.float32]:
        """Logits of all pairs of these passes, in their order: shape (pairs, 2), entailment and contradiction.

        The one place that waits for the device. Values may be infinite or NaN, where the network's are.

        Raises:
            DeviceOutOfMemory, EngineDied, EngineError: As in `start`.
        """
        ...

    def in_float32(self, rows: Packed) -> NDArray[np.float32] | None:
        """Logits as `collect` gives them, computed in float32; None where this network has nothing more exact.

        Asked for rows whose logits were not finite. Slow is fine.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back; the network computes nothing afterwards."""
        ...
