"""Which column of a source is the text, the reference, the revision, the kind and the system of a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producers.backfill.rows import Columns, Record, Rejected, Row
from tagging.documents import DEFAULT_KIND
from tagging.errors import SourceRefused
from tagging.names import Kind

USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text", "content", "body", "description", "message", "comment", "内容", "正文", "文本", "描述"),
    "ref": ("ref", "id", "ticket_id", "comment_id", "编号", "工单号"),
    "revision": ("revision",),
    "kind": ("kind",),
    "source": ("source",),
}
"""Names under which each is looked for, in this order, in capitals or not."""

_KINDS: Final[Mapping[str, Kind]] = {"ticket": "ticket", "comment": "comment"}
_MOST_NAMED: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The columns that a row is made of; ``None`` where the source has none."""

    text: str
    ref: str | None
    revision: str | None
    kind: str | None
    source: str | None

    @classmethod
    def among(cls, present: Sequence[str], wanted: Columns, *, where: str) -> "Roles":
        """The columns that were named, and guesses for the others.

        Raises:
            SourceRefused: A column that was named is not there, none looks like the text, or two have the same name.
        """
        if twice := sorted({name for name in present if present.count(name) > 1}):
            raise SourceRefused(
                f"{where}: several columns are called {', '.join(map(repr, twice))}; rename all but one"
            )
        if missing := [name for name in (wanted.text, wanted.ref, wanted.revision, wanted.kind) if name]:
            missing = [name for name in missing if name not in present]
        if missing:
            raise SourceRefused(f"{where}: no column {', '.join(map(repr, missing))}; it has: {_listed(present)}")
        text = _chosen("text", wanted.text, present)
        if text is None:
            raise SourceRefused(
                f"{where}: no column looks like the text; it has: {_listed(present)}. Name one with --text-column"
            )
        return cls(
            text=text,
            ref=_chosen("ref", wanted.ref, present),
            revision=_chosen("revision", wanted.revision, present),
            kind=_chosen("kind", wanted.kind, present),
            source=_chosen("source", None, present),
        )

    def record(self, number: int, columns: Mapping[str, Any]) -> Record:
        """The row that these columns make, or what keeps them from being one."""
        try:
            return Row(
                number=number,
                columns=columns,
                text=_text(self.text, columns.get(self.text)),
                ref=_ref(self.ref, columns.get(self.ref)) if self.ref else None,
                revision=_revision(self.revision, columns.get(self.revision)) if self.revision else 0,
                kind=_kind(self.kind, columns.get(self.kind)) if self.kind else DEFAULT_KIND,
                source=_system(self.source, columns.get(self.source)) if self.source else None,
            )
        except _UnfitError as e:
            return Rejected(number=number, reason=str(e), columns=columns)


class _UnfitError(Exception):
    """A cell that cannot play its role."""

    def __init__(self, column: str, expected: str, value: object) -> None:
        came = "nothing" if value is None else type(value).__name__
        super().__init__(f"{column}: expected {expected}, got {came}")


def _chosen(role: str, named: str | None, present: Sequence[str]) -> str | None:
    if named is not None:
        return named or None
    folded = {name.strip().casefold(): name for name in reversed(present)}
    folded.update((name, name) for name in present)
    return next((folded[usual] for usual in USUAL[role] if usual in folded), None)


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_NAMED])
    return f"{listed} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else listed or "none"


def _text(column: str, value: object) -> str:
    if not isinstance(value, str):
        raise _UnfitError(column, "a text", value)
    return value


def _ref(column: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if (whole := _whole(value)) is not None:
        return str(whole)
    raise _UnfitError(column, "a reference, text or whole number", value)


def _revision(column: str, value: object) -> int:
    if value is None or value == "":
        return 0
    whole = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else _whole(value)
    if whole is None or whole < 0:
        raise _UnfitError(column, "a whole number from 0", value)
    return whole


def _kind(column: str, value: object) -> Kind:
    if value is None or value == "":
        return DEFAULT_KIND
    kind = _KINDS.get(value.strip().casefold()) if isinstance(value, str) else None
    if kind is None:
        raise _UnfitError(column, "ticket or comment", value)
    return kind


def _system(column: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _UnfitError(column, "the name of a system", value)
    return value


def _whole(value: object) -> int | None:
    """A whole number; one that a table with gaps holds as 7.0 is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None
