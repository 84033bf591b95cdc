"""Which documents a message is about, read from its body before anything about it is checked.

What a sender leaves out is filled in as ``Decoder`` does it.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from tagging.names import KIND_OF_TASK, TAG_MANY, Kind

DEFAULT_SOURCE: Final = "api"
DEFAULT_KIND: Final[Kind] = "ticket"
ERASED_ITEM: Final = {"erased": True}
"""Stands in a ``tag_many`` for an item whose document was erased: the items after it keep their numbers."""


class Document(NamedTuple):
    """A ticket or comment, in its system."""

    source: str
    ref: str
    kind: str


def documents_of(task: str, body: object, *, task_id: str) -> list[Document]:
    """The documents that the message asks about, one for each of its texts; none where it is no message."""
    return [document for document, _ in _parts(task, body, task_id)]


def texts_of(document: Document, task: str, body: object, *, task_id: str) -> list[str]:
    """What the message says of this document."""
    parts = [part.get("text") for about, part in _parts(task, body, task_id) if about == document]
    return [text for text in parts if isinstance(text, str)]


def without(erased: Collection[Document], task: str, body: Any, *, task_id: str) -> Any:
    """The body without the texts of these documents, or None where nothing is left to ask."""
    if not erased or not isinstance(body, Mapping):
        return body
    if task != TAG_MANY:
        return None if _single(task, body, task_id) in erased else body
    items = [ERASED_ITEM if _item(item, body, task_id, i) in erased else item for i, item in enumerate(_items(body))]
    if not items:
        return body
    return None if all(item == ERASED_ITEM for item in items) else {**body, "items": items}


def _parts(task: str, body: object, task_id: str) -> list[tuple[Document, Mapping[str, Any]]]:
    if not isinstance(body, Mapping):
        return []
    if task != TAG_MANY:
        return [(_single(task, body, task_id), body)]
    numbered = ((_item(item, body, task_id, i), item) for i, item in enumerate(_items(body)))
    return [(document, item) for document, item in numbered if document is not None]


def _single(task: str, body: Mapping[str, Any], task_id: str) -> Document:
    return _document(body, {}, task_id, KIND_OF_TASK.get(task) or str(body.get("kind") or DEFAULT_KIND))


def _item(item: object, body: Mapping[str, Any], task_id: str, number: int) -> Document | None:
    if not isinstance(item, Mapping) or item == ERASED_ITEM:
        return None
    kind = item.get("kind") or body.get("kind") or DEFAULT_KIND
    return _document(item, body, f"{body.get('id') or task_id}/{number}", str(kind))


def _document(own: Mapping[str, Any], shared: Mapping[str, Any], default_ref: str, kind: str) -> Document:
    source = own.get("source") or shared.get("source") or DEFAULT_SOURCE
    return Document(str(source), str(own.get("ref") or own.get("id") or default_ref), kind)


def _items(body: Mapping[str, Any]) -> list[Any]:
    items = body.get("items")
    return items if isinstance(items, list) else []
