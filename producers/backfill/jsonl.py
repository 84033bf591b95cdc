"""JSON lines as a source and as an output of backfills."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from producers.backfill.rows import Columns, Record, Rejected, Row
from tagging.documents import DEFAULT_KIND
from tagging.errors import OutputRefused, SourceBroken, SourceRefused
from tagging.names import Kind

_TEXTS: Final = ("text", "content", "body", "description")
_REFS: Final = ("ref", "id", "ticket_id")
_REVISIONS: Final = ("revision",)
_KINDS: Final = ("kind",)
_KINDS_OF_ROWS: Final[Mapping[str, Kind]] = {"ticket": "ticket", "comment": "comment"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """The lines of a file in UTF-8, one JSON object each."""

    path: Path
    columns: Columns

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise SourceRefused(f"{self.path}: no such file")

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def fingerprint(self) -> str:
        """Stands for where the records come from and how they are read, not for what they hold."""
        return blake2b(repr((str(self.path.resolve()), self.columns)).encode(), digest_size=16).hexdigest()

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The records behind line ``after``.

        Raises:
            SourceBroken: Reading failed.
        """
        try:
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if number > after and line.strip():
                        yield self._record(number, line)
        except OSError as e:
            raise SourceBroken(f"{self.path}: {e.strerror}") from e

    def _record(self, number: int, line: bytes) -> Record:
        raw = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        try:
            columns = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            return Rejected(number=number, reason="expected UTF-8, got other bytes", raw=raw)
        except json.JSONDecodeError as e:
            return Rejected(number=number, reason=f"expected a JSON object, {e.msg} at character {e.pos}", raw=raw)
        if not isinstance(columns, dict):
            return Rejected(number=number, reason=f"expected a JSON object, got {type(columns).__name__}", raw=raw)
        return self._row(number, columns)

    def _row(self, number: int, columns: dict[str, Any]) -> Record:
        text = _value(columns, self.columns.text, _TEXTS)
        ref = _value(columns, self.columns.ref, _REFS)
        revision = _value(columns, self.columns.revision, _REVISIONS) or 0
        kind: Kind | None = _KINDS_OF_ROWS.get(str(_value(columns, self.columns.kind, _KINDS) or DEFAULT_KIND))
        if not isinstance(text, str):
            wanted = self.columns.text or " or ".join(_TEXTS)
            reason = f"{wanted}: expected a text, got {'nothing' if text is None else type(text).__name__}"
        elif type(revision) is not int or revision < 0:
            reason = "revision: expected a whole number from 0"
        elif kind is None:
            reason = "kind: expected ticket or comment"
        else:
            source = columns.get("source")
            return Row(
                number=number,
                columns=columns,
                text=text,
                ref=None if ref is None else str(ref),
                revision=revision,
                kind=kind,
                source=source if isinstance(source, str) else None,
            )
        return Rejected(number=number, reason=reason, columns=columns)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write these as JSON lines, all or nothing: whoever reads ``path`` finds what was there before or all of them.

    Raises:
        OutputRefused: It cannot be written there.
    """
    count = 0
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
                    count += 1
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as e:
        raise OutputRefused(f"{path}: {e.strerror}") from e
    return count


def write_rejects(path: Path, refused: Iterable[Rejected]) -> int:
    """Write rows that have no answer so that the file can be a source: their own columns, or their line as it was.

    Raises:
        OutputRefused: It cannot be written there.
    """
    return write_lines(path, (_fed_back(one) for one in refused))


def _fed_back(one: Rejected) -> dict[str, Any]:
    about = {"tagmill_row": one.number, "tagmill_error": one.reason}
    return {**one.columns, **about} if one.columns is not None else {**about, "tagmill_raw": one.raw}


def _value(columns: Mapping[str, Any], named: str | None, usual: Iterable[str]) -> Any:
    names = usual if named is None else [named]
    return next((columns[name] for name in names if columns.get(name) is not None), None)
