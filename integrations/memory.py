"""A ticketing system in this process's memory, with the same contract as the real ones: for tests and for trials."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from threading import Lock

from integrations.system import Declined, IntegrationError


class MemorySystem:
    """An ``Outbound`` that remembers what it was told, and fails as it is told."""

    def __init__(self, *, known: Iterable[str] | None = None) -> None:
        self._known = None if known is None else frozenset(known)
        self._tags: defaultdict[str, set[str]] = defaultdict(set)
        self._lock = Lock()
        self.notes: list[tuple[str, str]] = []
        """Tickets with their notes, the oldest first."""
        self.calls: list[str] = []
        """Names of the calls that were made, those that failed among them."""
        self.failures: list[IntegrationError] = []
        """Raised by the next calls, one each."""
        self.closed_tickets: set[str] = set()
        """That take no call."""

    def ticket_of(self, ref: str) -> str:
        """What stands before a ``#``: a comment is named after its ticket."""
        return ref.partition("#")[0]

    def tag_of(self, label: str) -> str:
        """As it is, with dashes for spaces."""
        return label.replace(" ", "-")

    def known_tags(self) -> frozenset[str] | None:
        """Those that it was made with."""
        self._call("known_tags")
        return self._known

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The tags that the ticket carries."""
        self._call("tags_of", ticket)
        return frozenset(self._tags[ticket])

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Make the ticket carry these too."""
        self._call("add", ticket)
        self._tags[ticket].update(tags)

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Take these off the ticket."""
        self._call("remove", ticket)
        self._tags[ticket].difference_update(tags)

    def suggest(self, ticket: str, note: str) -> None:
        """Keep the note."""
        self._call("suggest", ticket)
        self.notes.append((ticket, note))

    def _call(self, name: str, ticket: str | None = None) -> None:
        with self._lock:
            self.calls.append(name)
            if self.failures:
                raise self.failures.pop(0)
        if ticket in self.closed_tickets:
            raise Declined(f"ticket {ticket}: closed")
