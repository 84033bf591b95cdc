"""Where a source's bytes come from: a file, standard input or an object store; plain or gzipped."""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from tagging.errors import SourceRefused

STDIN: Final = "-"
HEAD_BYTES: Final = 1 << 20
"""How much is looked at to tell format and encoding."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@]*@")
BACKENDS: Final = {
    "s3": "s3fs", "s3a": "s3fs", "oss": "ossfs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs",
    "az": "adlfs",
}  # fmt: skip
"""What fsspec needs for each kind of store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that were opened: the first of them, and all of them, from the start."""

    head: bytes
    stream: io.BufferedIOBase
    raw: io.BufferedIOBase
    """As they lie there, compressed perhaps: how far they were read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are: a path, ``-`` or a URL of an object store."""

    spec: str

    def __str__(self) -> str:
        return "standard input" if self.spec == STDIN else _CREDENTIALS.sub("***@", self.spec)

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.spec

    @property
    def can_be_read_again(self) -> bool:
        """Whether it can be opened twice."""
        return self.spec != STDIN

    @property
    def identity(self) -> str:
        """The same for the same place, from whatever folder it is named."""
        return str(self) if self.is_remote or self.spec == STDIN else str(Path(self.spec).resolve())

    @contextmanager
    def opened(self) -> Iterator[Content]:
        """Its content, decompressed where it is gzip, whatever its name says.

        Raises:
            SourceRefused: It cannot be opened.
        """
        with ExitStack() as stack:
            raw = bottom = self._raw(stack)
            rewinds = raw.seekable()  # a gzip file says that it does, whatever it reads from
            magic, raw = _headed(raw, len(_GZIP_MAGIC), rewinds=rewinds)
            if magic == _GZIP_MAGIC:
                raw = stack.enter_context(gzip.GzipFile(fileobj=raw))
            head, stream = _headed(raw, HEAD_BYTES, rewinds=rewinds)
            yield Content(head=head, stream=stream, raw=bottom)

    def _raw(self, stack: ExitStack) -> io.BufferedIOBase:
        if self.spec == STDIN:
            return cast("io.BufferedReader", sys.stdin.buffer)
        if self.is_remote:
            return stack.enter_context(_remote(self))
        try:
            return stack.enter_context(Path(self.spec).open("rb"))
        except OSError as e:
            raise SourceRefused(f"{self}: {e.strerror}") from e


def _remote(place: Place) -> io.BufferedIOBase:
    try:
        import fsspec
    except ModuleNotFoundError as e:
        raise SourceRefused(f"{place}: object stores need fsspec; install tagmill[remote]") from e
    scheme = place.spec.partition("://")[0]
    try:
        opened = fsspec.open(place.spec, "rb").open()
    except ImportError as e:
        backend = BACKENDS.get(scheme, f"what fsspec asks for: {e}")
        raise SourceRefused(f"{place}: {scheme}:// needs {backend}; install it beside tagmill[remote]") from e
    except Exception as e:  # each store has errors of its own
        raise SourceRefused(f"{place}: cannot be opened: {type(e).__name__}") from e
    return io.BufferedReader(opened, buffer_size=1 << 16)


def _headed(stream: io.BufferedIOBase, size: int, *, rewinds: bool) -> tuple[bytes, io.BufferedIOBase]:
    """The first bytes, and a stream that begins with them."""
    head = _read_fully(stream, size)
    if rewinds:
        stream.seek(0)
        return head, stream
    return head, io.BufferedReader(_Rejoined(head, stream), buffer_size=1 << 16)


def _read_fully(stream: io.BufferedIOBase, size: int) -> bytes:
    """So many bytes, fewer where the stream ends; where it breaks, which whoever reads on will be told."""
    pieces: list[bytes] = []
    # One read of a pipe may bring fewer; ``read`` of a gzip file that breaks off would bring none at all.
    with suppress(EOFError, zlib.error):
        while size and (piece := stream.read1(size)):
            pieces.append(piece)
            size -= len(piece)
    return b"".join(pieces)


class _Rejoined(io.RawIOBase):
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, head: bytes, rest: io.BufferedIOBase) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # typeshed's is private
        """Fill the buffer from the one, then from the other."""
        piece: bytes | memoryview = self._head[: len(buffer)]
        if piece:
            self._head = self._head[len(piece) :]
        else:
            piece = self._rest.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
