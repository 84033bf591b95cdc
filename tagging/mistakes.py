"""What pydantic found wrong with something that a person wrote, in words that say what was expected instead."""

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_EXPECTED: Final = {
    "missing": "missing",
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected {le} or less",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length} of them, got {actual_length}",
    "too_long": "expected at most {max_length} of them, got {actual_length}",
    "string_pattern_mismatch": "expected a text that matches {pattern}",
    "value_error": "{error}",
}


def expected(problem: ErrorDetails, *, of: type[BaseModel]) -> str:
    """What this part of such a table should have been; never what it was, which may be a secret."""
    if problem["type"] == "extra_forbidden":
        *way, name = problem["loc"]
        return f"there is no such field{did_you_mean(str(name), _table_at(way, of).model_fields)}"
    words = _EXPECTED.get(problem["type"])
    return problem["msg"] if words is None else words.format(**problem.get("ctx", {}))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """``; did you mean …?`` with the known names that are nearest; empty where none is near."""
    near = get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _table_at(way: Iterable[int | str], table: type[BaseModel]) -> type[BaseModel]:
    """The table at the end of the way; a part that is no field's name is a key or a place within the same field."""
    for part in way:
        field = table.model_fields.get(str(part))
        if field is not None:
            table = next(_tables_in(field.annotation), table)
    return table


def _tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables_in(argument)
