"""What becomes of a delivery. A closed union: ``match`` on it is exhaustive."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """Done and stored. ``result`` is the JSON that the results backend gets."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Not done through no fault of the message; to be tried again later."""

    reason: str
    cause: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """Parked in the dead letters with its reason; trying again would not help."""

    reason: str
    error: str
    """Name of the error's class."""


Verdict = Tagged | Retry | Dead
