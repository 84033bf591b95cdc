"""The tables. A change here needs a migration in ``ledger/migrations/versions``; a test compares the two."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

# PostgreSQL refuses NUL in text and in JSONB, and no database takes a lone surrogate. One such character must not
# hold up the other rows of its batch, so it is replaced; what was asked is still found under the same reference,
# since a value that is compared with a column takes the same way.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """The JSON value with every character that a database refuses replaced."""
    match value:
        case str():
            return _UNSTORABLE.sub(_REPLACEMENT, value)
        case Mapping():
            return {storable(name): storable(inner) for name, inner in value.items()}
        case list() | tuple():
            return [storable(inner) for inner in value]
        case _:
            return value


_MAX_KEY_CHARS: Final = 300


def as_key(text: str) -> str:
    """The text as it stands in an index: storable, and of a length that PostgreSQL's indexes take.

    The contract bounds references to 256 characters, but a foreign client may give its Celery task any id.
    """
    if len(text) <= _MAX_KEY_CHARS and text.isprintable():
        return text  # nearly every key; neither NUL nor a surrogate is printable
    text = _UNSTORABLE.sub(_REPLACEMENT, text)
    if len(text) <= _MAX_KEY_CHARS:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[: _MAX_KEY_CHARS - len(digest) - 1]}…{digest}"


class KeyText(sa.types.TypeDecorator[str]):
    """Text that is indexed. What it is compared with takes the same way, so everything is found as it was written."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        """The value as it is stored."""
        return None if value is None else as_key(value)


class PlainText(sa.types.TypeDecorator[str]):
    """Text without the characters that a database refuses."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        """The value as it is stored."""
        return None if value is None else _UNSTORABLE.sub(_REPLACEMENT, value)


class ExactText(sa.types.TypeDecorator[str]):
    """Text kept to the last character, whatever came over the wire: stored as its UTF-8 bytes."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> bytes | None:
        """The value as it is stored."""
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: bytes | None, _dialect: sa.Dialect) -> str | None:
        """The value as it came."""
        return None if value is None else bytes(value).decode("utf-8", "surrogatepass")


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment, timezone-aware in UTC on both sides. SQLite keeps no offset, so none but UTC is ever stored."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """The value as it is stored."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """The value with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def dump_json(value: Any) -> str:
    """The value as JSON that every database takes; both engines serialise with it."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate, or no JSON at all
        text = "\\u0000"
    # Most values need no repair, and looking through the finished text is much cheaper than through the value.
    return text if "\\u0000" not in text else json.dumps(storable(value), allow_nan=False, ensure_ascii=False)


Json: Final = sa.JSON().with_variant(JSONB(), "postgresql")

# Indexes and constraints get the same name on every database, so that one migration fits all.
metadata: Final = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"}
)

tags: Final = sa.Table(
    "tags",
    metadata,
    # The reference leads the key: one index answers both "is this document's row there" and "tags of this document".
    sa.Column("ref", KeyText, primary_key=True),
    sa.Column("source", KeyText, primary_key=True),
    sa.Column("kind", PlainText, primary_key=True),
    sa.Column("label_set_digest", PlainText, primary_key=True),
    # The same labels asked singly and together are two questions with two answers.
    sa.Column("multi_label", sa.Boolean, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("task_id", KeyText, nullable=False, index=True),
    sa.Column("label_set", PlainText),
    sa.Column("decision", PlainText, nullable=False),
    sa.Column("model", PlainText, nullable=False),
    sa.Column("fingerprint", PlainText, nullable=False),
    sa.Column("answer", Json, nullable=False),
    # Those of the answer's pairs, for when the labels change; NULL in rows of earlier versions.
    sa.Column("logits", sa.LargeBinary),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

dead_letters: Final = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", KeyText, primary_key=True),
    sa.Column("task", PlainText, nullable=False),
    sa.Column("queue", PlainText, nullable=False),
    sa.Column("reason", PlainText, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("payload", ExactText, nullable=False),
    sa.Column("parked_at", UtcDateTime, nullable=False, index=True),
)

intake: Final = sa.Table(
    "intake",
    metadata,
    sa.Column("id", KeyText, primary_key=True),
    sa.Column("task", PlainText, nullable=False),
    sa.Column("queue", PlainText, nullable=False),
    # What the message is about. A tag_many has a source of its own at most; its documents stand in its body.
    sa.Column("source", KeyText, nullable=False),
    sa.Column("ref", KeyText),
    sa.Column("kind", PlainText),
    sa.Column("revision", sa.BigInteger),
    sa.Column("idempotency_key", KeyText),
    sa.Column("body", ExactText),
    sa.Column("state", PlainText, nullable=False),
    sa.Column("publishes", sa.Integer, nullable=False),
    sa.Column("reason", PlainText),
    sa.Column("accepted_at", UtcDateTime, nullable=False),
    sa.Column("published_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    # When somebody has to publish it next; NULL once it is finished.
    sa.Column("next_publish_at", UtcDateTime),
    sa.UniqueConstraint("source", "idempotency_key", name="uq_intake_source_idempotency_key"),
)
sa.Index("ix_intake_due", intake.c.state, intake.c.queue, intake.c.next_publish_at)
sa.Index("ix_intake_finished", intake.c.state, intake.c.finished_at)
sa.Index("ix_intake_document", intake.c.ref, intake.c.source)
_has_text: Final = intake.c.body.is_not(None)
# Retention looks for old texts again and again; a year of rows without one must not be in its way.
sa.Index("ix_intake_texts", intake.c.finished_at, sqlite_where=_has_text, postgresql_where=_has_text)

own_tags: Final = sa.Table(
    "own_tags",
    metadata,
    # A digest of what it is unique by: the names together may be longer than an index takes.
    sa.Column("id", PlainText, primary_key=True),
    sa.Column("account", KeyText, nullable=False),
    sa.Column("ticket", KeyText, nullable=False),
    sa.Column("tag", KeyText, nullable=False),
    # The document and the label set that want the tag on the ticket.
    sa.Column("source", KeyText, nullable=False),
    sa.Column("ref", KeyText, nullable=False),
    sa.Column("kind", PlainText, nullable=False),
    sa.Column("label_set", PlainText, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("task_id", KeyText, nullable=False),
    sa.Column("intended_at", UtcDateTime, nullable=False),
    # When the system had confirmed it; NULL: the call was made or about to be made.
    sa.Column("set_at", UtcDateTime),
    # When it was taken off by us, or first seen missing.
    sa.Column("removed_at", UtcDateTime),
)
sa.Index("ix_own_tags_ticket", own_tags.c.account, own_tags.c.ticket)
sa.Index("ix_own_tags_document", own_tags.c.ref, own_tags.c.source)
sa.Index("ix_own_tags_set", own_tags.c.set_at)

own_notes: Final = sa.Table(
    "own_notes",
    metadata,
    sa.Column("id", PlainText, primary_key=True),
    sa.Column("source", KeyText, nullable=False),
    sa.Column("ref", KeyText, nullable=False),
    sa.Column("kind", PlainText, nullable=False),
    sa.Column("noted_at", UtcDateTime, nullable=False, index=True),
)
sa.Index("ix_own_notes_document", own_notes.c.ref, own_notes.c.source)

crashes: Final = sa.Table(
    "crashes",
    metadata,
    sa.Column("id", KeyText, primary_key=True),
    # Runs alone that began and have not ended, as far as is known.
    sa.Column("runs", sa.Integer, nullable=False),
    sa.Column("began_at", UtcDateTime, nullable=False),
)

tombstones: Final = sa.Table(
    "tombstones",
    metadata,
    # A digest: that something was erased must not say what.
    sa.Column("document", PlainText, primary_key=True),
    sa.Column("erased_at", UtcDateTime, nullable=False),
)

api_keys: Final = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", PlainText, primary_key=True),
    sa.Column("digest", PlainText, nullable=False),
    sa.Column("name", PlainText, nullable=False),
    sa.Column("scopes", PlainText, nullable=False),
    sa.Column("source", KeyText),
    sa.Column("per_minute", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime),
)
