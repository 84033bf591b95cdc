"""What a ticketing system is to us: it signs what it sends, and takes tags back.

    IntegrationError
    ├── Unverified         the request is not proven to come from the system; nothing of it was read
    ├── Unreadable         it is, but it is not what the system documents
    ├── Busy               the system asks us to come back later
    ├── Unavailable        it did not answer, or failed; trying again may help
    └── Declined           it refuses this call for good: no such ticket, no right, a wrong token

Their texts name fields and statuses, never a secret and never what a customer wrote.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tagging.errors import TagmillError
from tagging.names import Kind


class IntegrationError(TagmillError):
    """Base of what goes wrong between a ticketing system and us."""


class Unverified(IntegrationError):
    """The request is not proven to come from the system. ``why`` is one of a few words, fit to be counted by."""

    def __init__(self, why: str, text: str) -> None:
        self.why = why
        super().__init__(text)


class Unreadable(IntegrationError):
    """The request is genuine, but not of the shape that the system documents."""


class Busy(IntegrationError):
    """The system asks us to come back later."""

    def __init__(self, text: str, *, after_s: float | None) -> None:
        self.after_s = after_s
        """Seconds that it asked for; None where it named none."""
        super().__init__(text)


class Unavailable(IntegrationError):
    """The system did not answer, or failed; trying again may help."""


class Declined(IntegrationError):
    """The system refuses this call for good; trying again would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A webhook's request as it came in."""

    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    received_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A new or edited ticket or comment."""

    kind: Kind
    ref: str
    """Of the document in its system, at most 256 characters; ``Outbound.ticket_of`` finds the ticket again by it."""
    revision: int
    """Grows with every edit, as the payload tells; an older one never overwrites a newer one."""
    text: str
    delivery_id: str | None
    """The system's own id of this delivery, the same when it is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """An event that asks nothing of us: another kind, a bot's, or our own echo."""

    why: str
    """One of a few words, fit to be counted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """The system asks whether we are there; ``answer`` is the JSON that it expects."""

    answer: Mapping[str, Any]


Event = Incoming | Ignored | Handshake


class Inbound(Protocol):
    """How a system's webhooks are taken."""

    def receive(self, hook: Hook) -> Event:
        """What the request says, verified over its raw bytes first.

        Raises:
            Unverified: The signature is missing, wrong or too old.
            Unreadable: It is genuine but of no documented shape.
        """
        ...


class Outbound(Protocol):
    """How tags get to a system. Safe to be called again: adding a tag that is there changes nothing.

    Every method raises ``Busy``, ``Unavailable`` or ``Declined``.
    """

    def ticket_of(self, ref: str) -> str:
        """The ticket that carries the tags of this document: itself, or the one that a comment belongs to."""
        ...

    def tag_of(self, label: str) -> str:
        """The label as this system spells tags."""
        ...

    def known_tags(self) -> frozenset[str] | None:
        """The tags that exist in the system; None where it has no such list."""
        ...

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The tags that the ticket carries."""
        ...

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Make the ticket carry these too; none that it carries is lost."""
        ...

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Take these off the ticket; no other is lost."""
        ...

    def suggest(self, ticket: str, note: str) -> None:
        """Leave a note that agents see and customers do not."""
        ...
