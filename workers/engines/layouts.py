"""How a pass lies on the device: its pairs end to end, or as a rectangle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from workers.engines.attention import Attention, GroupedAttention, MaskedAttention, VarlenAttention
from workers.engines.bert import Bert, Rows
from workers.engines.buckets import Bucket, padded_to, small_bucket, small_buckets, snug
from workers.engines.cuda import Compute, Recorded, Streams
from workers.engines.network import Packed
from workers.engines.passes import PassSize, packed

Record = Callable[[Compute], Recorded]

log = logging.getLogger(__name__)


class Layout(Protocol):
    """Computes passes of one layout."""

    def cost(self, size: PassSize) -> int:
        """Tokens that a pass of this size computes."""
        ...

    def warm_up(self, *, max_length: int, max_tokens: int) -> None:
        """Prepare for passes up to so many tokens a pair and in all."""
        ...

    def logits(self, rows: Packed) -> torch.Tensor:
        """Logits of the pairs on the device, shape (pairs, columns)."""
        ...


class PackedLayout:
    """Pairs end to end: no token of padding is computed.

    On CPUs attention is one call for each distinct length, on GPUs one call of kernels for variable lengths.
    """

    def __init__(self, bert: Bert, streams: Streams) -> None:
        self._bert = bert
        self._streams = streams

    def cost(self, size: PassSize) -> int:
        return packed(size)

    def warm_up(self, *, max_length: int, max_tokens: int) -> None:
        """Nothing to record."""

    def logits(self, rows: Packed) -> torch.Tensor:
        edges = np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int32)
        positions = np.arange(len(rows.ids), dtype=np.int32) - np.repeat(edges[:-1], rows.lengths)
        ids, segments, places, ends = self._streams.send(rows.ids, rows.segments, positions, edges)
        return self._bert.logits(Rows(ids, segments, places, ends[:-1]), self._attention(rows, ends))

    def _attention(self, rows: Packed, edges: torch.Tensor) -> Attention:
        if edges.device.type == "cuda":
            return VarlenAttention(edges, int(rows.lengths[0]))
        return GroupedAttention(rows.lengths.tolist())


class PaddedLayout:
    """Pairs as a rectangle. Small ones have one of few shapes, so that a recorded pass can be replayed for them.

    Args:
        record: Records a pass; None: each is computed anew.
    """

    def __init__(self, bert: Bert, streams: Streams, *, record: Record | None) -> None:
        self._bert = bert
        self._streams = streams
        self._record = record
        self._recorded: dict[Bucket, tuple[torch.Tensor, Recorded]] = {}

    def cost(self, size: PassSize) -> int:
        return self._bucket(size).tokens

    def warm_up(self, *, max_length: int, max_tokens: int) -> None:
        """Record a pass of every shape that small ones can have."""
        if self._record is None:
            return
        for bucket in small_buckets(max_length=max_length, max_tokens=max_tokens):
            self._recorded[bucket] = self._recording(bucket, self._record)
        log.info("engine.recorded passes=%d", len(self._recorded))

    def logits(self, rows: Packed) -> torch.Tensor:
        bucket = self._bucket(PassSize(len(rows.lengths), int(rows.lengths[0]), len(rows.ids)))
        (sent,) = self._streams.send(np.concatenate(padded_to(bucket, rows)))
        if bucket not in self._recorded:
            return self._compute(bucket, sent)[: len(rows.lengths)]
        inputs, recorded = self._recorded[bucket]
        inputs.copy_(sent)
        recorded.replay()
        return recorded.output[: len(rows.lengths)].clone()  # the next replay overwrites it

    def _bucket(self, size: PassSize) -> Bucket:
        small = small_bucket(size) if self._record is not None else None
        return small or snug(size)

    def _recording(self, bucket: Bucket, record: Record) -> tuple[torch.Tensor, Recorded]:
        rows = Packed(*(np.ones(bucket.pairs, dtype=np.int32) for _ in Packed._fields))
        (inputs,) = self._streams.send(np.concatenate(padded_to(bucket, rows)))
        return inputs, record(lambda: self._compute(bucket, inputs))

    def _compute(self, bucket: Bucket, sent: torch.Tensor) -> torch.Tensor:
        """Logits of a rectangle that was sent as one row of numbers: ids, segments, lengths."""
        ids, segments, lengths = torch.split(sent, [bucket.tokens, bucket.tokens, bucket.pairs])
        columns = torch.arange(bucket.length, device=sent.device).clamp(max=self._bert.positions - 1)
        first = torch.arange(0, bucket.tokens, bucket.length, device=sent.device)
        rows = Rows(ids, segments, columns.repeat(bucket.pairs), first)
        return self._bert.logits(rows, MaskedAttention(lengths, bucket.length))
