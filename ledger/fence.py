"""What keeps an erased document erased: its tombstone, and a lock between those who write and those who erase.

A writer looks at the tombstones and writes in one transaction. On PostgreSQL an erasure that commits between the two
would go unnoticed, so writers share a lock that an erasure takes alone; SQLite has one writer at a time anyway.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from ledger.lookup import portions
from ledger.schema import as_key, tombstones
from tagging.documents import Document

_LOCK: Final = 7_382_214_917  # any number of our own, next to that of the migrations
_ANY_TOMBSTONE: Final = "SELECT EXISTS (SELECT 1 FROM tombstones)"  # once a batch: not worth compiling


def document_digest(document: Document) -> str:
    """32 hex digits that stand for the document.

    Without ``cache.pepper``, which may be changed to forget the cache; a tombstone must outlive that.
    """
    h = hashlib.blake2b(digest_size=16, person=b"tagmill.erased")
    for part in document:
        data = as_key(part).encode()
        h.update(len(data).to_bytes(4, "big") + data)
    return h.hexdigest()


def erased_among(connection: sa.Connection, documents: Iterable[Document]) -> frozenset[Document]:
    """Those that were erased. None of the others can be until the transaction ends; it must be one of ``writing``.

    Where nothing was ever erased, which is the rule, ``documents`` is not even looked at.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
    if not connection.exec_driver_sql(_ANY_TOMBSTONE).scalar_one():
        return frozenset()
    by_digest: dict[str, list[Document]] = {}
    for document in set(documents):
        by_digest.setdefault(document_digest(document), []).append(document)
    query = sa.select(tombstones.c.document)
    found = (
        digest
        for some in portions(list(by_digest))
        for digest in connection.execute(query.where(tombstones.c.document.in_(some))).scalars()
    )
    return frozenset(document for digest in found for document in by_digest[digest])


def keep_writers_out(connection: sa.Connection) -> None:
    """From now until the transaction ends nobody else writes what the tombstones might forbid."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
