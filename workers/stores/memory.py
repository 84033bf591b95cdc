"""The ports in this process's memory, with the same contracts as the real ones: for tests and for trying things out."""

from collections.abc import Mapping, Sequence

from ledger.tags import TagKey, TagRow, supersedes
from tagging.answers import CacheTier
from workers.ports import CachedLogits, CacheKey, DeadLetter, Hit, Stored
from workers.stores.logits import keepable


class MemoryResultCache:
    """A ``ResultCache`` that forgets nothing."""

    def __init__(self, *, tier: CacheTier = "local") -> None:
        self._tier = tier
        self._entries: dict[CacheKey, CachedLogits] = {}

    def get_many(self, keys: Sequence[CacheKey]) -> list[Hit | None]:
        """What is known, in the order of the keys."""
        return [Hit(self._entries[key], self._tier) if key in self._entries else None for key in keys]

    def put_many(self, entries: Mapping[CacheKey, CachedLogits]) -> None:
        """Remember."""
        self._entries.update({key: tuple(logits) for key, logits in entries.items() if keepable(logits)})


class MemoryTagStore:
    """A ``TagStore`` with the ledger's fence."""

    def __init__(self) -> None:
        self._rows: dict[TagKey, TagRow] = {}

    def write(self, rows: Sequence[Stored]) -> None:
        """Store the batch."""
        for stored in rows:
            row = TagRow.of(stored.answer)
            if row.key not in self._rows or supersedes(row, self._rows[row.key]):
                self._rows[row.key] = row

    def by_id(self, task_id: str) -> list[TagRow]:
        """What stands as the answer to the task of this id."""
        return [row for row in self._rows.values() if row.task_id == task_id]

    def by_ref(self, ref: str, source: str | None = None) -> list[TagRow]:
        """What stands for the document of this reference."""
        return [row for row in self._rows.values() if row.ref == ref and source in (None, row.source)]


class MemoryDeadLetters:
    """``DeadLetters`` in the order in which they were parked."""

    def __init__(self) -> None:
        self._letters: dict[str, DeadLetter] = {}

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; the same id again replaces the earlier one."""
        for letter in letters:
            self._letters.pop(letter.id, None)
            self._letters[letter.id] = letter

    @property
    def parked(self) -> list[DeadLetter]:
        """What waits, the oldest first."""
        return list(self._letters.values())
