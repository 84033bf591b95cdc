"""API keys: made once, shown once, and kept as digests.

A key is ``tgm_<id>_<secret>``. The secret is 256 random bits, so that one SHA-256 of it is as good as a slow hash:
there is no dictionary to try. Who reads the database learns no key.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, get_args

import sqlalchemy as sa

from ledger.database import Database
from ledger.schema import api_keys

Scope = Literal["enqueue", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_PREFIX: Final = "tgm"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_NO_DIGEST: Final = hashlib.sha256(b"no such key").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept."""

    id: str
    name: str
    """What people call it."""
    scopes: frozenset[Scope]
    source: str | None
    """The one source whose documents it may send and see; None: all of them."""
    per_minute: int
    """Requests that it may make in a minute."""
    created_at: datetime
    revoked_at: datetime | None

    def allows(self, scope: Scope) -> bool:
        """Whether it may do this; an ``admin`` key may do everything."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made, with the only sight of its secret."""

    key: ApiKey
    token: str = field(repr=False)


class KeyLedger:
    """The keys, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, *, scopes: Collection[Scope], source: str | None, per_minute: int) -> NewKey:
        """A new key.

        Raises:
            StoreUnavailable: The database failed; there may be a key that nobody has seen.
        """
        id_, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
        key = ApiKey(
            id=id_,
            name=name,
            scopes=frozenset(scopes),
            source=source,
            per_minute=per_minute,
            created_at=datetime.now(UTC),
            revoked_at=None,
        )
        row = {
            "id": id_,
            "digest": _digest(secret),
            "name": name,
            "scopes": " ".join(sorted(scopes)),
            "source": source,
            "per_minute": per_minute,
            "created_at": key.created_at,
        }
        with self._database.writing() as connection:
            connection.execute(sa.insert(api_keys), row)
        return NewKey(key=key, token=f"{_PREFIX}_{id_}_{secret}")

    def find(self, token: str) -> ApiKey | None:
        """The key that this is the token of; None for a wrong one and for a revoked one.

        Raises:
            StoreUnavailable: The database failed.
        """
        prefix, id_, secret = (*token.split("_"), "", "", "")[:3]
        row = self._row(id_) if prefix == _PREFIX and id_.isalnum() and id_.isascii() else None
        # Compared even where there is no such key: how long an answer takes tells nothing about ids.
        genuine = hmac.compare_digest(_digest(secret), row.digest if row is not None else _NO_DIGEST)
        return _key(row) if row is not None and genuine and row.revoked_at is None else None

    def revoke(self, id_: str) -> bool:
        """Refuse the key of this id from now on; whether there was one to revoke.

        Raises:
            StoreUnavailable: The database failed.
        """
        change = sa.update(api_keys).where(api_keys.c.id == id_, api_keys.c.revoked_at.is_(None))
        with self._database.writing() as connection:
            return connection.execute(change.values(revoked_at=datetime.now(UTC))).rowcount > 0

    def all(self) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.transaction() as connection:
            return [_key(row) for row in connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at))]

    def _row(self, id_: str) -> "sa.Row[tuple[object, ...]] | None":
        with self._database.transaction() as connection:
            return connection.execute(sa.select(api_keys).where(api_keys.c.id == id_)).first()


def _key(row: "sa.Row[tuple[object, ...]]") -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(scope for scope in SCOPES if scope in row.scopes.split()),
        source=row.source,
        per_minute=row.per_minute,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
