"""What becomes of a delivery. A closed union: ``match`` on it is exhaustive."""

from dataclasses import dataclass
from typing import Any

from tagging.errors import TagmillError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """Done and stored. ``result`` is the JSON that the results backend gets."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Not done through no fault of the message; to be tried again later."""

    cause: TagmillError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """Parked in the dead letters; trying again would not help."""

    cause: TagmillError
    """Its text is the reason that people read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answered with an error, and neither stored nor parked: its document was erased."""

    cause: TagmillError


Verdict = Tagged | Retry | Dead | Refused
