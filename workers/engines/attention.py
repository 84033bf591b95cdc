"""Attention among the tokens of each pair, over pairs that lie end to end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it


class Attention(Protocol):
    """Scaled dot products within each pair; all tensors have the shape (rows, heads, size of a head)."""

    def every(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """What each token attends to; as many rows as tokens."""
        ...

    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """What the first token of each pair attends to; `query` and the answer have as many rows as pairs."""
        ...


class Group(NamedTuple):
    """Neighbours of one length."""

    length: int  # tokens of each
    pairs: slice
    tokens: slice


class GroupedAttention:
    """One call for each distinct length, without a mask and without padding: exact, and what a CPU does fastest."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._groups = groups(lengths)

    def every(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended = [
            _attend(query[group.tokens], key[group.tokens], value[group.tokens], pairs=_count(group.pairs))
            for group in self._groups
        ]
        return torch.cat(attended) if len(attended) > 1 else attended[0]

    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended = [
            _attend(query[group.pairs], key[group.tokens], value[group.tokens], pairs=_count(group.pairs))
            for group in self._groups
        ]
        return torch.cat(attended) if len(attended) > 1 else attended[0]


class MaskedAttention:
    """One call over pairs that are all padded to one length; what lies beyond a pair's own tokens is masked."""

    def __init__(self, lengths: torch.Tensor, length: int) -> None:
        present = torch.arange(length, device=lengths.device)[None] < lengths[:, None]
        self._mask = present[:, None, None, :]  # (pairs, 1, 1, length)
        self._pairs = len(lengths)

    def every(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _attend(query, key, value, pairs=self._pairs, mask=self._mask)

    first = every


class VarlenAttention:
    """One call over packed pairs of any lengths, by the kernels that CUDA has for half precision.

    Has not run on a GPU yet. It needs compute capability 8.0 and has no counterpart on CPUs.

    Args:
        edges: Where pairs begin, and where the last one ends: int32, shape (pairs + 1,), on the device.
        longest: Tokens of the longest pair.
    """

    def __init__(self, edges: torch.Tensor, longest: int) -> None:
        self._edges = edges
        self._one_each = torch.arange(len(edges), dtype=torch.int32, device=edges.device)
        self._longest = longest

    def every(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _varlen(query, key, value, self._edges, self._edges, self._longest, self._longest)

    def first(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return _varlen(query, key, value, self._one_each, self._edges, 1, self._longest)


def groups(lengths: Sequence[int]) -> list[Group]:
    """Neighbours of equal length, taken together."""
    found: list[Group] = []
    pair = token = 0
    for length, run in groupby(lengths):
        count = sum(1 for _ in run)
        found.append(Group(length, slice(pair, pair + count), slice(token, token + count * length)))
        pair, token = pair + count, token + count * length
    return found


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, pairs: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    heads, size = query.shape[1:]
    q, k, v = (rows.view(pairs, -1, heads, size).transpose(1, 2) for rows in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(-1, heads, size)


def _varlen(*arguments: Any) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # here, since older builds of torch lack it

    attended = varlen_attn(*arguments)
    assert isinstance(attended, torch.Tensor)  # and no statistics, which were not asked for
    return attended


def _count(rows: slice) -> int:
    return int(rows.stop - rows.start)
