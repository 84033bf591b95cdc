"""What a job asks of every text, and under which id an answer to it is known."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final, Self

from producers.backfill.rows import Row
from tagging.answers import Answer
from tagging.documents import DEFAULT_KIND, DEFAULT_SOURCE
from tagging.messages import SCHEMA_VERSION
from tagging.names import Kind

_FILE_SOURCE: Final = "backfill"
"""Source of the documents that stand for texts whose answers go to a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The same for every text of a job."""

    labels: tuple[str, ...]
    label_set: str | None = None
    multi_label: bool = False
    template: str | None = None
    serves: str
    """The model that workers are set up to serve: other models' answers that stand do not count."""
    model: str | None = None
    """Asked for by name: a worker that serves another one refuses."""
    round: str = ""
    """Not empty: asked anew, whatever stands. Part of every item's id."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The question of ``to_json``."""
        values = json.loads(text)
        return cls(**{**values, "labels": tuple(values["labels"])})

    def to_json(self) -> str:
        """As it stands in a job file; equal questions have equal texts."""
        return _as_json(self)

    def message(self, items: Iterable["Item"]) -> dict[str, Any]:
        """The ``tag_many`` message that asks it about these items."""
        asked = {"label_set": self.label_set} if self.label_set else {"labels": list(self.labels)}
        optional = {name: value for name in ("template", "model") if (value := getattr(self, name))}
        return {
            "schema_version": SCHEMA_VERSION,
            **asked,
            **optional,
            "multi_label": self.multi_label,
            "items": [item.on_the_wire() for item in items],
        }

    def is_answered_by(self, answer: Answer, item: "Item") -> bool:
        """Whether an answer that stands is what a worker would answer about this item, as far as one can know here.

        The set of labels decides: their order does not change what is asked. A model that was replaced under its name
        is not noticed; that is what ``round`` is for.
        """
        return (
            not self.round
            and answer["revision"] >= item.revision
            and answer["model"]["name"] == (self.model or self.serves)
            and self.asks_what(answer)
        )

    def asks_what(self, answer: Answer) -> bool:
        """Whether it is the question that was answered, by whatever model about whatever revision."""
        return (
            answer["multi_label"] == self.multi_label
            and sorted(answer["labels"]) == sorted(self.labels)
            and self.template in (None, answer["template"])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A text that is asked about once, however many rows hold it."""

    id: str
    text: str
    source: str
    ref: str
    revision: int
    kind: Kind

    def on_the_wire(self) -> dict[str, Any]:
        """The item of a ``tag_many`` message."""
        return {
            "text": self.text,
            "id": self.id,
            "source": self.source,
            "ref": self.ref,
            "revision": self.revision,
            "kind": self.kind,
        }


def item_of_document(row: Row, question: Question, *, source: str | None, pepper: str) -> Item:
    """The item of a row whose tags go to the ledger, under the row's own reference; without one, under its text's."""
    where = row.source or source or DEFAULT_SOURCE
    parts = (where, row.kind, row.ref or "", str(row.revision), row.text)
    ref = row.ref or _ref_of(row.text, pepper)
    id_ = _digest([*parts, question.to_json()], pepper)
    return Item(id=id_, text=row.text, source=where, ref=ref, revision=row.revision, kind=row.kind)


def item_of_text(row: Row, question: Question, *, pepper: str) -> Item:
    """The item of a row whose tags go to a file: the same for all rows with this text."""
    id_ = _digest([row.text, question.to_json()], pepper)
    ref = _ref_of(row.text, pepper)
    return Item(id=id_, text=row.text, source=_FILE_SOURCE, ref=ref, revision=0, kind=DEFAULT_KIND)


def cut(items: Sequence[Item], *, most: int, max_chars: int) -> list[list[Item]]:
    """The items in chunks for one message each, longest together: little padding, and the same texts side by side.

    Args:
        items: Of one window.
        most: Items in a chunk.
        max_chars: Of a chunk, padded: its items times its longest text. One item always fits.
    """
    chunks: list[list[Item]] = []
    longest = 0
    for item in sorted(items, key=lambda item: (-len(item.text), item.text, item.id)):
        if not chunks or len(chunks[-1]) == most or (len(chunks[-1]) + 1) * longest > max_chars:
            chunks.append([])
            longest = len(item.text)
        chunks[-1].append(item)
    return chunks


def slim(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a job keeps of an answer: nothing that differs from one run to the next."""
    return {
        "decision": answer["decision"],
        "tags": answer["tags"],
        "labels": answer["labels"],
        "scores": answer["scores"],
        "model": answer["model"]["name"],
        "label_set_digest": answer["label_set_digest"],
    }


@lru_cache(maxsize=16)  # it is part of every item's id
def _as_json(question: Question) -> str:
    return json.dumps(asdict(question), ensure_ascii=False, sort_keys=True)


def _ref_of(text: str, pepper: str) -> str:
    """The reference of a text that has none: the same whatever is asked, so that what is known of it is found."""
    return _digest([text], pepper)


def _digest(parts: Iterable[str], pepper: str) -> str:
    h = hashlib.blake2b(digest_size=16, key=pepper.encode()[:64], person=b"tagmill.item")
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(4, "big"))
        h.update(data)
    return h.hexdigest()
