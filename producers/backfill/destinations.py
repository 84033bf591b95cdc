"""Where an output goes: a file or an object of a store. Either way it is there as a whole or not at all."""

import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Self, cast

from producers.backfill.sources.places import BACKENDS, Place
from tagging.errors import OutputRefused

_FORMAT_OF_SUFFIX: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_GZIP: Final = ".gz"
_OBJECT_STORES: Final = frozenset({"s3", "s3a", "oss", "gs", "gcs", "abfs", "abfss", "az"})
"""Of what fsspec knows, those where an object appears once all of it was sent. On others half a file could be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A path, or the URL of an object, whose name says the format."""

    place: Place
    file_format: str
    """``jsonl``, ``csv`` or ``parquet``."""
    is_gzipped: bool

    @classmethod
    def of(cls, spec: str) -> Self:
        """The destination of this path or URL.

        Raises:
            OutputRefused: Its name asks for no format that there is, or it could not be written there.
        """
        place = Place(spec)
        name = PurePosixPath(spec).name.lower()
        plain = name.removesuffix(_GZIP)
        file_format = _FORMAT_OF_SUFFIX.get(PurePosixPath(plain).suffix)
        if file_format is None:
            expected = ", ".join(_FORMAT_OF_SUFFIX)
            raise OutputRefused(f"{place}: expected a name that ends in {expected}, or in {_GZIP} behind it")
        if file_format == "parquet" and plain != name:
            raise OutputRefused(f"{place}: Parquet is compressed by itself; leave out {_GZIP}")
        if file_format == "parquet" and find_spec("pyarrow") is None:
            raise OutputRefused(f"{place}: Parquet needs pyarrow; install tagmill[parquet]")
        if place.is_remote:
            _store(place)
        elif not Path(spec).absolute().parent.is_dir():
            raise OutputRefused(f"{place}: there is no folder {Path(spec).parent}")
        return cls(place=place, file_format=file_format, is_gzipped=plain != name)

    def folder(self, scratch: Path) -> Path:
        """Where there is room for the output while it is made: beside it, or in ``scratch`` if that is remote."""
        return scratch if self.place.is_remote else Path(self.place.spec).absolute().parent

    @contextmanager
    def replacing(self, scratch: Path) -> Iterator[IO[bytes]]:
        """A file whose bytes take the destination's place once all of them are there.

        Raises:
            OutputRefused: It cannot be written there; what was there before stays.
        """
        with refused(str(self.place)):
            landing = _sent_to(self.place, scratch) if self.place.is_remote else replacing(Path(self.place.spec))
            with landing as file, _compressed(file) if self.is_gzipped else _as_it_is(file) as plain:
                yield plain


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is complete and on the disk; only its owner may read it."""
    folder = path.absolute().parent
    with tempfile.NamedTemporaryFile("wb", dir=folder, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _sync_folder(folder)


@contextmanager
def refused(where: str) -> Iterator[None]:
    """What the system refuses inside the block is refused in our words."""
    try:
        yield
    except OSError as e:
        raise OutputRefused(f"{where}: {e.strerror or e}") from e


@contextmanager
def _sent_to(place: Place, scratch: Path) -> Iterator[IO[bytes]]:
    """A file of this machine that is sent to a store when it is complete."""
    with tempfile.NamedTemporaryFile("wb", dir=scratch, prefix=".output.") as file:
        yield file
        file.flush()
        try:
            _store(place).put_file(file.name, place.spec)
        except Exception as e:  # each store has errors of its own
            raise OutputRefused(f"{place}: cannot be written: {type(e).__name__}") from e


@contextmanager
def _compressed(file: IO[bytes]) -> Iterator[IO[bytes]]:
    # Without a time and a name: two runs write the same bytes.
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
        yield cast("IO[bytes]", compressed)


@contextmanager
def _as_it_is(file: IO[bytes]) -> Iterator[IO[bytes]]:
    yield file


def _store(place: Place) -> Any:
    """What writes to the store of this URL; nothing is called yet."""
    scheme = place.spec.partition("://")[0].lower()
    if scheme not in _OBJECT_STORES:
        stores = ", ".join(sorted(_OBJECT_STORES))
        raise OutputRefused(
            f"{place}: on {scheme}:// an output could be seen before it is whole; known to do better are {stores}. "
            "Write it to a file and copy that"
        )
    try:
        import fsspec
    except ModuleNotFoundError as e:
        raise OutputRefused(f"{place}: object stores need fsspec; install tagmill[remote]") from e
    try:
        return fsspec.core.url_to_fs(place.spec)[0]
    except (ImportError, ValueError) as e:
        backend = BACKENDS.get(scheme, f"what fsspec asks for: {e}")
        raise OutputRefused(f"{place}: {scheme}:// needs {backend}; install it beside tagmill[remote]") from e


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
