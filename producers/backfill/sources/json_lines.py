"""JSON lines: an object a line. A file of rejects is one, and its rows are read as they were."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Final, NoReturn, TextIO

from producers.backfill.rows import Columns, Record, Rejected
from producers.backfill.sources.encodings import flaw
from producers.backfill.sources.lines import MAX_LINE_CHARS, Line, LongLine, bounded_lines, kept
from producers.backfill.sources.roles import USUAL, Roles
from tagging.errors import SourceRefused

REJECTED_ROW: Final = "tagmill_row"
REJECTED_ERROR: Final = "tagmill_error"
REJECTED_RAW: Final = "tagmill_raw"
"""What a file of rejects says beside the columns of a row: its number and why it has no answer; or its line."""

_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_AHEAD_LINES: Final = 1_000


def read_json_lines(text: TextIO, *, where: str, columns: Columns, after: int = 0) -> Iterator[Record]:
    """The records behind the line of this number; empty lines count and are no records.

    Raises:
        SourceRefused: It is no file of JSON lines, or none of the first objects has a column that is asked for.
    """
    lines = bounded_lines(text)
    ahead = _ahead(lines)
    if ahead and kept(ahead[0]).lstrip().startswith("["):
        raise SourceRefused(f"{where}: a JSON array; expected an object a line, as `jq -c '.[]'` makes them of it")
    roles = Roles.among(_names_in(ahead, columns), columns, where=where)
    for number, line in enumerate(chain(ahead, lines), start=1):
        if number > after and (isinstance(line, LongLine) or not line.isspace()):
            yield _record(number, line, roles=roles, encoding=text.encoding)


def _ahead(lines: Iterator[Line]) -> list[Line]:
    """The first lines: objects need not have the same keys, so columns are looked for in several."""
    ahead: list[Line] = []
    chars = 0
    for line in lines:
        ahead.append(line)
        chars += len(kept(line))
        if len(ahead) >= _AHEAD_LINES or chars >= MAX_LINE_CHARS:
            break
    return ahead


def _names_in(lines: Iterable[Line], columns: Columns) -> list[str]:
    names: dict[str, None] = {}
    for line in lines:
        with suppress(ValueError):
            value = _object(line, "")
            if REJECTED_RAW not in value:
                names.update(dict.fromkeys(value))
    for ours in (REJECTED_ROW, REJECTED_ERROR):
        names.pop(ours, None)
    # No object to go by: each line is judged for itself.
    named = [name for name in (columns.text, columns.ref, columns.revision, columns.kind) if name]
    return list(names) or [*named, *(usual[0] for usual in USUAL.values())]


def _record(number: int, line: Line, *, roles: Roles, encoding: str) -> Record:
    try:
        columns = _object(line, encoding)
    except ValueError as e:
        return Rejected(number=number, reason=f"expected a JSON object, {e}", raw=kept(line))
    if REJECTED_RAW in columns:
        return Rejected(number=number, reason=str(columns.get(REJECTED_ERROR)), raw=str(columns[REJECTED_RAW]))
    for ours in (REJECTED_ROW, REJECTED_ERROR):
        columns.pop(ours, None)
    return roles.record(number, columns)


def _object(line: Line, encoding: str) -> dict[str, Any]:
    """The object that the line is.

    Raises:
        ValueError: It is none; the text says why, and quotes nothing of it.
    """
    if isinstance(line, LongLine):
        raise ValueError(f"got {line.reason}")
    if wrong := flaw(line, encoding):
        raise ValueError(f"got {wrong}")
    try:
        value = _parsed(line)
    except json.JSONDecodeError as e:
        raise ValueError(f"{e.msg} at character {e.pos}") from None
    except RecursionError:
        raise ValueError("got one that is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"got {type(value).__name__}")
    # Bytes that were no text stand so in a line that was rejected, and nowhere else.
    if (
        REJECTED_RAW not in value
        and _ESCAPED_SURROGATE.search(line)
        and flaw(json.dumps(value, ensure_ascii=False), "")
    ):
        raise ValueError("got half of a surrogate pair")
    return value


def _parsed(line: str) -> Any:
    return json.loads(line, parse_constant=_no_number, parse_float=_finite)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"got {constant}, which JSON does not have")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("got a number that is too large")
    return number
