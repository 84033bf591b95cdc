"""How many rows are looked up at once: in parts that fit into a statement, by conditions that an index serves."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

_AT_ONCE: Final = 500


def portions(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in parts that are small enough for one statement."""
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def among(
    columns: Sequence[sa.Column[Any]], keys: Collection[tuple[Any, ...]], *, by: Sequence[sa.Column[Any]]
) -> sa.ColumnElement[bool]:
    """Whether these columns, taken together, are one of the keys.

    Args:
        columns: A value each of every key.
        keys: At most a portion.
        by: Those of the columns that lead an index. SQLite would not use it for the whole: it looks through the table.
    """
    values = zip(columns, zip(*keys, strict=True), strict=True) if keys else ()
    led = [column.in_(sorted(set(given))) for column, given in values if column in set(by)]
    return sa.and_(*led, sa.tuple_(*columns).in_(list(keys)))
