"""Values of tables and Parquet files as JSON has them: what a job keeps of a row is JSON."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any


def plain(value: Any) -> Any:
    """The value itself where JSON has it, else text.

    Dates and times are ISO 8601, decimals and what else there is their own digits and words, bytes UTF-8 or, where they
    are none, Base64; what is not a number is nothing.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return None if math.isnan(value) else value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case bytes() | bytearray() | memoryview() | date() | time():
            return _written(value)
        case Sequence() | set() | frozenset():
            return [plain(one) for one in value]
    return str(value)


def _written(value: bytes | bytearray | memoryview | date | time) -> str:
    return value.isoformat() if isinstance(value, date | time) else _text(bytes(value))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode()
