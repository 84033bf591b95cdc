"""How much there is of a source, and how much of it was read, as far as that is known before all of it was read."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_FEW_BYTES: Final = 4 << 20
"""What is smaller is read ahead of its rows for the most part, so nothing follows from how much of it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Either is None where it is not known."""

    rows: int | None = None
    """That the source has."""
    share: float | None = None
    """Of its bytes that were read, from 0 to 1."""


class Reading:
    """Kept by whoever reads a source, and asked by whoever watches."""

    def __init__(self) -> None:
        self.is_known = False
        """Whether the source was asked how many rows it has."""
        self._rows: int | None = None
        self._size = 0
        self._position: Callable[[], int] | None = None
        self._is_ended = False

    def has(self, rows: int | None) -> None:
        """The source says how many rows it has, or cannot."""
        self.is_known = True
        self._rows = rows

    def follow(self, stream: io.BufferedIOBase) -> None:
        """These are its bytes, not decompressed; a pipe, which has no size, is not followed."""
        self._is_ended = False
        if stream.seekable():
            self._size = _size(stream)
            self._position = stream.tell

    def end(self) -> None:
        """All of it was read."""
        self._is_ended = True

    def extent(self) -> Extent:
        """As it is now."""
        if self._rows is not None or self._position is None or self._size < _FEW_BYTES:
            return Extent(rows=self._rows)
        try:
            return Extent(share=min(1.0, self._position() / self._size))
        except ValueError:  # it was closed, at its end or long before
            return Extent(share=1.0 if self._is_ended else None)


def _size(stream: io.BufferedIOBase) -> int:
    try:
        return os.fstat(stream.fileno()).st_size
    except OSError:  # no file of this machine: what fsspec opens knows its size
        return int(getattr(getattr(stream, "raw", stream), "size", None) or 0)
